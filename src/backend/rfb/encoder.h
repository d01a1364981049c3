// Rectangles of a picture as a client gets them.
//   Spec     RFC 6143, 7.7.1 (Raw), 7.7.4 (Hextile), 7.7.6 (ZRLE)
//   Threads  one object, one thread
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/rfb/frame.h"
#include "backend/rfb/pixel_format.h"

namespace caisson::rfb {

enum class Encoding : int32_t { Raw = 0, Hextile = 5, Zrle = 16 };

class Encoder {
 public:
  Encoder();
  ~Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  // Appends the rectangle with its header. What lies outside of the picture is black.
  void encode(const Frame& frame, const Rect& rect, Encoding encoding, const PixelWriter& pixels,
              std::vector<uint8_t>& out);

 private:
  void raw(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out);
  void hextile(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out);
  // False where the library fails: nothing was appended.
  bool zrle(const Frame& frame, const Rect& rect, const PixelWriter& pixels, std::vector<uint8_t>& out);
  void zrle_tile(const PixelWriter& pixels);
  void fetch(const Frame& frame, const Rect& rect);

  struct Deflate;
  std::unique_ptr<Deflate> deflate_;  // one stream for a connection's life, as the client's
  std::vector<uint32_t> tile_;
  unsigned tile_width_ = 0;
  std::vector<uint8_t> plain_;
};

void put16(std::vector<uint8_t>& out, unsigned value);
void put32(std::vector<uint8_t>& out, uint32_t value);
void put_rect(std::vector<uint8_t>& out, const Rect& rect, int32_t encoding);

}  // namespace caisson::rfb
