#include "backend/png.h"

#include <zlib.h>

namespace caisson {
namespace {

void append_big(std::vector<uint8_t>& out, uint32_t value) {
  for (unsigned shift = 32; shift > 0; shift -= 8) out.push_back(static_cast<uint8_t>(value >> (shift - 8)));
}

void append_chunk(std::vector<uint8_t>& out, const char (&type)[5], std::span<const uint8_t> data) {
  append_big(out, static_cast<uint32_t>(data.size()));
  const size_t start = out.size();
  out.insert(out.end(), type, type + 4);
  out.insert(out.end(), data.begin(), data.end());
  append_big(out, static_cast<uint32_t>(::crc32(0, out.data() + start, static_cast<uInt>(out.size() - start))));
}

}  // namespace

Result<std::vector<uint8_t>> encode_png(unsigned width, unsigned height, std::span<const uint8_t> rgb) {
  if (width == 0 || height == 0 || width > 0xffff || height > 0xffff || rgb.size() != size_t{3} * width * height) {
    return fail("a picture of {} × {} pixels cannot be a PNG file", width, height);
  }
  std::vector<uint8_t> rows;
  rows.reserve(rgb.size() + height);
  for (unsigned y = 0; y < height; ++y) {
    rows.push_back(0);  // no filter
    const auto row = rgb.subspan(size_t{3} * y * width, size_t{3} * width);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  uLongf size = ::compressBound(rows.size());
  std::vector<uint8_t> packed(size);
  if (::compress2(packed.data(), &size, rows.data(), rows.size(), Z_BEST_SPEED) != Z_OK) {
    return fail("not enough memory for a picture of {} × {} pixels", width, height);
  }
  packed.resize(size);

  std::vector<uint8_t> out{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  std::vector<uint8_t> header;
  append_big(header, width);
  append_big(header, height);
  header.insert(header.end(), {8 /* bits */, 2 /* RGB */, 0, 0, 0});
  append_chunk(out, "IHDR", header);
  append_chunk(out, "IDAT", packed);
  append_chunk(out, "IEND", {});
  return out;
}

}  // namespace caisson
