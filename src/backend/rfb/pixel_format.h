// How a client wants its pixels.
//   Spec     RFC 6143, 7.4; 7.7.5 (CPIXEL); rfbproto.rst (TPIXEL); 7.6.2 (SetColourMapEntries)
//   Models   true colour of 8, 16 and 32 bits; a colour map of 8 bits, which gets 3, 3 and 2 bits of red, green and
//   blue Threads  plain data
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace caisson::rfb {

struct PixelFormat {
  uint8_t bits = 32, depth = 24;
  bool big_endian = false, true_colour = true;
  uint16_t red_max = 255, green_max = 255, blue_max = 255;
  uint8_t red_shift = 16, green_shift = 8, blue_shift = 0;
  bool operator==(const PixelFormat&) const = default;

  static constexpr size_t length = 16;
  [[nodiscard]] static Result<PixelFormat> parse(std::span<const uint8_t, length> bytes);
  [[nodiscard]] std::array<uint8_t, length> serialise() const;
};

// Writes pixels in a format.
class PixelWriter {
 public:
  explicit PixelWriter(const PixelFormat& format = {});
  // Bytes of a pixel, and of a CPIXEL.
  [[nodiscard]] unsigned size() const { return size_; }
  [[nodiscard]] unsigned compact_size() const { return compact_size_; }
  void put(std::vector<uint8_t>& out, uint32_t rgb) const { write(out, value(rgb), 0, size_); }
  void put_compact(std::vector<uint8_t>& out, uint32_t rgb) const {
    write(out, value(rgb), compact_offset_, compact_size_);
  }
  // A TPIXEL: red, green and blue where a pixel has these as bytes, else the pixel.
  void put_tight(std::vector<uint8_t>& out, uint32_t rgb) const {
    if (!bytes_) return put(out, rgb);
    for (const unsigned shift : {16u, 8u, 0u}) out.push_back(static_cast<uint8_t>(rgb >> shift));
  }

 private:
  [[nodiscard]] uint32_t value(uint32_t rgb) const {
    return red_[rgb >> 16 & 0xff] | green_[rgb >> 8 & 0xff] | blue_[rgb & 0xff];
  }
  void write(std::vector<uint8_t>& out, uint32_t value, unsigned offset, unsigned count) const;

  unsigned size_, compact_size_;
  unsigned compact_offset_ = 0;  // from the pixel's first byte
  bool big_endian_;
  bool bytes_;
  std::array<uint32_t, 256> red_{}, green_{}, blue_{};
};

// The map of a client that has one: 256 colours of 3, 3 and 2 bits, as a SetColourMapEntries message.
[[nodiscard]] std::vector<uint8_t> colour_map();

}  // namespace caisson::rfb
