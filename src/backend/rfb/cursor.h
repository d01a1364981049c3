// The picture of a pointer, for viewers that draw it themselves where theirs is: it follows the hand at once.
//   Spec     RFC 6143, 7.8.1 (Cursor); the community's rfbproto for Cursor With Alpha
//   Threads  plain data
#pragma once

#include <cstdint>
#include <vector>

#include "backend/rfb/frame.h"
#include "backend/rfb/pixel_format.h"

namespace caisson::rfb {

inline constexpr int32_t cursor_encoding = -239, alpha_cursor_encoding = -314;

struct Cursor {
  static constexpr unsigned most_side = 256;

  unsigned width = 0, height = 0;     // 0 and 0: no pointer is to be seen
  unsigned hot_x = 0, hot_y = 0;      // what of it is where the pointer is
  std::vector<uint32_t> pixels = {};  // 0xAARRGGBB, colours multiplied by alpha, rows from the top
  bool operator==(const Cursor&) const = default;
};

// Appends it as a rectangle. Without alpha a pixel is there or not.
void put_cursor(std::vector<uint8_t>& out, const Cursor& cursor, const PixelWriter& pixels);
void put_alpha_cursor(std::vector<uint8_t>& out, const Cursor& cursor);

// What viewers are shown.
struct View {
  TiledFrame whole;  // with the guest's pointer in it
  TiledFrame bare;   // for those that draw the pointer
  Cursor cursor;
  uint64_t cursor_version = 0;  // grows when `cursor` changes; 0: there has been none

  void replace(Cursor next);  // larger than most_side: none
};

}  // namespace caisson::rfb
