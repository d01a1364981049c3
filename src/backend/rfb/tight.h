// The Tight encoding: one colour, a palette with an index for each pixel, or the pixels, packed by zlib.
//   Spec     rfbproto.rst (the RFB community's), "Tight Encoding"
//   Omits    JPEG, which loses, and the gradient filter
//   Threads  one object, one thread
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/rfb/palette.h"
#include "backend/rfb/pixel_format.h"
#include "backend/rfb/zlib_stream.h"

namespace caisson::rfb {

class TightEncoder {
 public:
  static constexpr unsigned most_width = 2048;  // of a rectangle

  // Appends a rectangle's data: `pixels` row by row, `width` in a row, at most 4 MiB as the viewer gets them. False
  // where zlib fails: `out` is as it was.
  [[nodiscard]] bool encode(std::span<const uint32_t> pixels, unsigned width, const PixelWriter& writer,
                            std::vector<uint8_t>& out);

 private:
  enum Stream : uint8_t { FullColour, TwoColours, Indexed, Streams };

  void put_two_colours(std::span<const uint32_t> pixels, unsigned width);
  [[nodiscard]] bool put_data(Stream stream, std::vector<uint8_t>& out);

  std::array<ZlibStream, Streams> streams_;
  Palette palette_;
  std::vector<uint8_t> plain_, packed_;
};

}  // namespace caisson::rfb
