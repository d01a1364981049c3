#include "backend/rfb/pixel_format.h"

#include <bit>

namespace caisson::rfb {
namespace {

constexpr PixelFormat mapped{.bits = 8,
                             .depth = 8,
                             .red_max = 7,
                             .green_max = 7,
                             .blue_max = 3,
                             .red_shift = 5,
                             .green_shift = 2,
                             .blue_shift = 0};

}  // namespace

Result<PixelFormat> PixelFormat::parse(std::span<const uint8_t, length> bytes) {
  const auto word = [&](size_t at) { return static_cast<uint16_t>(bytes[at] << 8 | bytes[at + 1]); };
  PixelFormat format{bytes[0], bytes[1], bytes[2] != 0, bytes[3] != 0, word(4),
                     word(6),  word(8),  bytes[10],     bytes[11],     bytes[12]};
  if (format.bits != 8 && format.bits != 16 && format.bits != 32) return fail("pixels of {} bits", format.bits);
  if (!format.true_colour) {
    if (format.bits != 8) return fail("a colour map with pixels of {} bits", format.bits);
    return format;
  }
  const auto fits = [&](uint16_t most, uint8_t shift) {
    return most != 0 && shift < format.bits && static_cast<unsigned>(std::bit_width(most)) + shift <= format.bits;
  };
  if (!fits(format.red_max, format.red_shift) || !fits(format.green_max, format.green_shift) ||
      !fits(format.blue_max, format.blue_shift)) {
    return fail("colours that do not fit into a pixel");
  }
  return format;
}

std::array<uint8_t, PixelFormat::length> PixelFormat::serialise() const {
  const auto high = [](uint16_t value) { return static_cast<uint8_t>(value >> 8); };
  const auto low = [](uint16_t value) { return static_cast<uint8_t>(value); };
  return {bits,
          depth,
          static_cast<uint8_t>(big_endian),
          static_cast<uint8_t>(true_colour),
          high(red_max),
          low(red_max),
          high(green_max),
          low(green_max),
          high(blue_max),
          low(blue_max),
          red_shift,
          green_shift,
          blue_shift};
}

PixelWriter::PixelWriter(const PixelFormat& given) {
  const PixelFormat format = given.true_colour ? given : mapped;
  size_ = compact_size_ = format.bits / 8u;
  big_endian_ = given.big_endian;
  bytes_ = given.true_colour && format.bits == 32 && format.depth == 24 && format.red_max == 255 &&
           format.green_max == 255 && format.blue_max == 255;
  const auto fill = [](std::array<uint32_t, 256>& table, uint16_t most, uint8_t shift) {
    for (uint32_t i = 0; i < 256; ++i) table[i] = (i * most + 127) / 255 << shift;
  };
  fill(red_, format.red_max, format.red_shift);
  fill(green_, format.green_max, format.green_shift);
  fill(blue_, format.blue_max, format.blue_shift);
  if (!given.true_colour || format.bits != 32 || format.depth > 24) return;
  const uint32_t used = red_[255] | green_[255] | blue_[255];
  const bool low = (used & 0xff00'0000) == 0, high = (used & 0xff) == 0;
  if (!low && !high) return;
  compact_size_ = 3;
  // Big-endian the least significant three bytes are the last ones.
  compact_offset_ = low == big_endian_ ? 1 : 0;
}

void PixelWriter::write(std::vector<uint8_t>& out, uint32_t value, unsigned offset, unsigned count) const {
  for (unsigned i = offset; i < offset + count; ++i) {
    out.push_back(static_cast<uint8_t>(value >> 8 * (big_endian_ ? size_ - 1 - i : i)));
  }
}

std::vector<uint8_t> colour_map() {
  std::vector<uint8_t> out{1, 0, 0, 0, 1, 0};  // type, padding, first colour, how many
  const auto put = [&](uint32_t part, uint32_t most) {
    const uint32_t value = part * 0xffff / most;
    out.push_back(static_cast<uint8_t>(value >> 8));
    out.push_back(static_cast<uint8_t>(value));
  };
  for (uint32_t i = 0; i < 256; ++i) {
    put(i >> 5, 7);
    put(i >> 2 & 7, 7);
    put(i & 3, 3);
  }
  return out;
}

}  // namespace caisson::rfb
