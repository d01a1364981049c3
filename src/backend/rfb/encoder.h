// Rectangles of a picture as a client gets them.
//   Spec     RFC 6143, 7.7.1 (Raw), 7.7.4 (Hextile), 7.7.6 (ZRLE); Tight is in tight.h
//   Threads  one object, one thread
#pragma once

#include <cstdint>
#include <vector>

#include "backend/rfb/frame.h"
#include "backend/rfb/palette.h"
#include "backend/rfb/pixel_format.h"
#include "backend/rfb/tight.h"
#include "backend/rfb/zlib_stream.h"

namespace caisson::rfb {

enum class Encoding : int32_t { Raw = 0, Hextile = 5, Tight = 7, Zrle = 16 };

class Encoder {
 public:
  // The widest rectangle that an encoding has.
  [[nodiscard]] static unsigned most_width(Encoding encoding) {
    return encoding == Encoding::Tight ? TightEncoder::most_width : most_side;
  }
  // Appends the rectangle with its header. What lies outside of the picture is black.
  void encode(const Frame& frame, const Rect& rect, Encoding encoding, const PixelWriter& pixels,
              std::vector<uint8_t>& out);

 private:
  void raw(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out);
  void hextile(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out);
  // False where the library fails.
  bool tight(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out);
  bool zrle(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out);
  void zrle_tile(const PixelWriter& pixels);
  void fetch(const Frame& frame, const Rect& rect);

  Palette palette_;
  ZlibStream zrle_stream_;
  TightEncoder tight_;
  std::vector<uint32_t> tile_;
  unsigned tile_width_ = 0;
  std::vector<uint8_t> plain_;
};

void put16(std::vector<uint8_t>& out, unsigned value);
void put32(std::vector<uint8_t>& out, uint32_t value);
void put_rect(std::vector<uint8_t>& out, const Rect& rect, int32_t encoding);

}  // namespace caisson::rfb
