// The colours of a part of the screen, in the order in which they come.
//   Threads  plain data
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace caisson::rfb {

class Palette {
 public:
  static constexpr size_t largest = 256;

  // Of `pixels`, one at least. False: there are more than `most` (at most `largest`), and the first `most` were found.
  bool gather(std::span<const uint32_t> pixels, size_t most);
  [[nodiscard]] const std::vector<uint32_t>& colours() const { return colours_; }
  // Of a colour that is there.
  [[nodiscard]] size_t index_of(uint32_t colour) const { return table_[slot_of(colour)] - size_t{1}; }

 private:
  [[nodiscard]] size_t slot_of(uint32_t colour) const;

  static constexpr unsigned table_bits = 10;  // four times as many as colours
  std::vector<uint32_t> colours_;
  std::array<uint16_t, size_t{1} << table_bits> table_{};  // 0, or one more than a place among the colours
};

}  // namespace caisson::rfb
