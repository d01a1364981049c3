#include "backend/rfb/cursor.h"

#include <algorithm>
#include <utility>

#include "backend/rfb/encoder.h"

namespace caisson::rfb {

void View::replace(Cursor next) {
  if (next.width == 0 || next.height == 0 || next.width > Cursor::most_side || next.height > Cursor::most_side ||
      next.pixels.size() != size_t{next.width} * next.height) {
    next = {};
  } else {
    next.hot_x = std::min(next.hot_x, next.width - 1);
    next.hot_y = std::min(next.hot_y, next.height - 1);
  }
  if (next == cursor) return;
  cursor = std::move(next);
  ++cursor_version;
}

void put_cursor(std::vector<uint8_t>& out, const Cursor& cursor, const PixelWriter& pixels) {
  put_rect(out, {cursor.hot_x, cursor.hot_y, cursor.width, cursor.height}, cursor_encoding);
  for (const uint32_t pixel : cursor.pixels) {
    const unsigned alpha = pixel >> 24;
    // The colour itself again.
    const auto part = [&](unsigned shift) {
      return alpha == 0 ? 0u : std::min(255u, ((pixel >> shift & 0xff) * 255 + alpha / 2) / alpha) << shift;
    };
    pixels.put(out, part(16) | part(8) | part(0));
  }
  for (unsigned y = 0; y < cursor.height; ++y) {
    for (unsigned x = 0; x < cursor.width; x += 8) {
      unsigned byte = 0;
      for (unsigned bit = 0; bit < 8 && x + bit < cursor.width; ++bit) {
        if (cursor.pixels[size_t{y} * cursor.width + x + bit] >> 24 >= 128) byte |= 0x80u >> bit;
      }
      out.push_back(static_cast<uint8_t>(byte));
    }
  }
}

void put_alpha_cursor(std::vector<uint8_t>& out, const Cursor& cursor) {
  put_rect(out, {cursor.hot_x, cursor.hot_y, cursor.width, cursor.height}, alpha_cursor_encoding);
  put32(out, static_cast<uint32_t>(Encoding::Raw));
  for (const uint32_t pixel : cursor.pixels) {
    put32(out, pixel << 8 | pixel >> 24);  // red, green, blue, alpha, whatever the viewer's format
  }
}

}  // namespace caisson::rfb
