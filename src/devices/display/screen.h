// What a machine's viewers and screenshots ask of whatever shows its picture.
//   Threads  under the device lock
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace caisson::display {

// A picture, 8 bits each of red, green and blue, rows from the top without padding.
struct Picture {
  unsigned width = 0;
  unsigned height = 0;
  std::vector<uint8_t> rgb;
};

// A pointer that lies above the picture, in a plane of its own.
struct PointerPicture {
  unsigned width = 0;
  unsigned height = 0;
  unsigned hot_x = 0, hot_y = 0;      // what of it is where the pointer is; the guest's word, may lie outside
  std::vector<uint32_t> pixels = {};  // 0xAARRGGBB, colours multiplied by alpha, rows from the top
};

class Screen {
 public:
  virtual ~Screen() = default;
  // Of the picture.
  [[nodiscard]] virtual std::pair<unsigned, unsigned> size() const = 0;
  // Counts what may have changed the picture.
  [[nodiscard]] virtual uint64_t changes() = 0;
  // What a screen would show now. Black where the picture is switched off.
  [[nodiscard]] virtual Picture picture() const = 0;
  // The same without what pointer() has.
  [[nodiscard]] virtual Picture picture_below_pointer() const { return picture(); }
  // None: the guest draws its pointer into the picture, or shows none.
  [[nodiscard]] virtual std::optional<PointerPicture> pointer() const { return {}; }
  // The host would like a picture of this size; whether the guest can be told. It does as it likes.
  virtual bool want_size(unsigned width, unsigned height) {
    (void)width;
    (void)height;
    return false;
  }
  // The characters of a text mode, lines ended by "\n", trailing blanks left out; nothing in a graphics mode.
  [[nodiscard]] virtual std::string text() const = 0;
};

}  // namespace caisson::display
