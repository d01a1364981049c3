#include "backend/rfb/encoder.h"

#include <algorithm>

namespace caisson::rfb {
namespace {

constexpr unsigned hextile_side = 16, zrle_side = 64;
// Hextile's subencoding mask, 7.7.4.
constexpr uint8_t hextile_raw = 1, hextile_background = 2, hextile_foreground = 4, hextile_rects = 8,
                  hextile_coloured = 16;
// ZRLE's subencodings, 7.7.6: 0 raw, 1 one colour, 2 to 16 a packed palette, 128 runs.
constexpr uint8_t zrle_raw = 0, zrle_solid = 1, zrle_runs = 128;
constexpr size_t most_colours = 16;

}  // namespace

void put16(std::vector<uint8_t>& out, unsigned value) {
  out.push_back(static_cast<uint8_t>(value >> 8));
  out.push_back(static_cast<uint8_t>(value));
}

void put32(std::vector<uint8_t>& out, uint32_t value) {
  put16(out, value >> 16);
  put16(out, value & 0xffff);
}

void put_rect(std::vector<uint8_t>& out, const Rect& rect, int32_t encoding) {
  put16(out, rect.x);
  put16(out, rect.y);
  put16(out, rect.width);
  put16(out, rect.height);
  put32(out, static_cast<uint32_t>(encoding));
}

void Encoder::fetch(const Frame& frame, const Rect& rect) {
  tile_width_ = rect.width;
  tile_.clear();
  for (unsigned y = rect.y; y < rect.y + rect.height; ++y) {
    for (unsigned x = rect.x; x < rect.x + rect.width; ++x) {
      tile_.push_back(x < frame.width && y < frame.height ? frame.pixels[size_t{y} * frame.width + x] : 0);
    }
  }
}

void Encoder::encode(const Frame& frame, const Rect& rect, Encoding encoding, const PixelWriter& pixels,
                     std::vector<uint8_t>& out) {
  const size_t start = out.size();
  put_rect(out, rect, static_cast<int32_t>(encoding));
  if (encoding == Encoding::Hextile) return hextile(frame, rect, pixels, out);
  if (encoding == Encoding::Zrle || encoding == Encoding::Tight) {
    if (encoding == Encoding::Zrle ? zrle(frame, rect, pixels, out) : tight(frame, rect, pixels, out)) return;
    out.resize(start);
    put_rect(out, rect, static_cast<int32_t>(Encoding::Raw));
  }
  raw(frame, rect, pixels, out);
}

void Encoder::raw(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out) {
  fetch(frame, rect);
  out.reserve(out.size() + tile_.size() * pixels.size());
  for (const uint32_t rgb : tile_) pixels.put(out, rgb);
}

void Encoder::hextile(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out) {
  for (unsigned y = rect.y; y < rect.y + rect.height; y += hextile_side) {
    for (unsigned x = rect.x; x < rect.x + rect.width; x += hextile_side) {
      const Rect part{x, y, std::min(hextile_side, rect.x + rect.width - x),
                      std::min(hextile_side, rect.y + rect.height - y)};
      fetch(frame, part);
      const bool two = palette_.gather(tile_, 2);  // or one
      const bool one = palette_.colours().size() == 1;
      const uint32_t background = tile_[0];
      const size_t start = out.size();
      out.push_back(one   ? hextile_background
                    : two ? hextile_background | hextile_rects | hextile_foreground
                          : hextile_background | hextile_rects | hextile_coloured);
      pixels.put(out, background);
      if (one) continue;
      if (two) pixels.put(out, palette_.colours()[1]);
      const size_t count_at = out.size();
      out.push_back(0);
      unsigned count = 0;
      const size_t raw_size = 1 + tile_.size() * pixels.size();
      bool small = true;
      for (unsigned row = 0; row < part.height && small; ++row) {
        for (unsigned from = 0; from < part.width;) {
          const uint32_t colour = tile_[size_t{row} * part.width + from];
          unsigned to = from + 1;
          while (to < part.width && tile_[size_t{row} * part.width + to] == colour) ++to;
          if (colour != background) {
            if (!two) pixels.put(out, colour);
            out.push_back(static_cast<uint8_t>(from << 4 | row));
            out.push_back(static_cast<uint8_t>((to - from - 1) << 4));
            ++count;
          }
          from = to;
        }
        small = out.size() - start < raw_size && count <= 255;
      }
      if (small) {
        out[count_at] = static_cast<uint8_t>(count);
        continue;
      }
      out.resize(start);
      out.push_back(hextile_raw);
      for (const uint32_t rgb : tile_) pixels.put(out, rgb);
    }
  }
}

void Encoder::zrle_tile(const PixelWriter& pixels) {
  const bool few = palette_.gather(tile_, most_colours);
  const auto& colours = palette_.colours();
  if (colours.size() == 1) {
    plain_.push_back(zrle_solid);
    pixels.put_compact(plain_, tile_[0]);
    return;
  }
  if (few) {
    plain_.push_back(static_cast<uint8_t>(colours.size()));
    for (const uint32_t rgb : colours) pixels.put_compact(plain_, rgb);
    const unsigned bits = colours.size() == 2 ? 1 : colours.size() <= 4 ? 2 : 4;
    for (size_t row = 0; row < tile_.size(); row += tile_width_) {
      unsigned byte = 0, filled = 0;
      for (unsigned x = 0; x < tile_width_; ++x) {
        byte = byte << bits | static_cast<unsigned>(palette_.index_of(tile_[row + x]));
        filled += bits;
        if (filled == 8) {
          plain_.push_back(static_cast<uint8_t>(byte));
          byte = filled = 0;
        }
      }
      if (filled != 0) plain_.push_back(static_cast<uint8_t>(byte << (8 - filled)));
    }
    return;
  }
  // Runs, unless they take more than the pixels themselves.
  const size_t start = plain_.size();
  const size_t raw_size = 1 + tile_.size() * pixels.compact_size();
  plain_.push_back(zrle_runs);
  for (size_t from = 0; from < tile_.size() && plain_.size() - start < raw_size;) {
    size_t to = from + 1;
    while (to < tile_.size() && tile_[to] == tile_[from]) ++to;
    pixels.put_compact(plain_, tile_[from]);
    size_t length = to - from - 1;
    for (; length >= 255; length -= 255) plain_.push_back(255);
    plain_.push_back(static_cast<uint8_t>(length));
    from = to;
  }
  if (plain_.size() - start < raw_size) return;
  plain_.resize(start);
  plain_.push_back(zrle_raw);
  for (const uint32_t rgb : tile_) pixels.put_compact(plain_, rgb);
}

bool Encoder::tight(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out) {
  fetch(frame, rect);
  return tight_.encode(tile_, rect.width, pixels, out);
}

bool Encoder::zrle(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out) {
  plain_.clear();
  for (unsigned y = rect.y; y < rect.y + rect.height; y += zrle_side) {
    for (unsigned x = rect.x; x < rect.x + rect.width; x += zrle_side) {
      fetch(frame, {x, y, std::min(zrle_side, rect.x + rect.width - x), std::min(zrle_side, rect.y + rect.height - y)});
      zrle_tile(pixels);
    }
  }
  const size_t length_at = out.size();
  put32(out, 0);
  if (!zrle_stream_.append(plain_, out)) return false;
  const size_t length = out.size() - length_at - 4;
  for (unsigned i = 0; i < 4; ++i) out[length_at + i] = static_cast<uint8_t>(length >> 8 * (3 - i));
  return true;
}

}  // namespace caisson::rfb
