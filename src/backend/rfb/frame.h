// A picture of the screen, and which of its tiles changed when.
//   Units    pixels: 0x00RRGGBB, rows from the top without padding
//   Threads  plain data
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace caisson::rfb {

inline constexpr unsigned most_side = 4096;

struct Frame {
  unsigned width = 1;
  unsigned height = 1;
  std::vector<uint32_t> pixels = std::vector<uint32_t>(1);
};

struct Rect {
  unsigned x = 0, y = 0, width = 0, height = 0;
  bool operator==(const Rect&) const = default;
};

class TiledFrame {
 public:
  static constexpr unsigned tile = 64;
  static constexpr unsigned grid = most_side / tile;  // tiles in a row, however wide the picture is
  using Versions = std::array<uint64_t, size_t{grid} * grid>;

  // Sides beyond most_side are cut off. A picture of another size has changed everywhere.
  void replace(Frame next);
  [[nodiscard]] const Frame& frame() const { return frame_; }
  // Of each tile, row by row: a number that grows when it changes; never 0.
  [[nodiscard]] const Versions& versions() const { return versions_; }

 private:
  Frame frame_;
  uint64_t version_ = 1;
  Versions versions_ = [] {
    Versions all;
    all.fill(1);
    return all;
  }();
};

}  // namespace caisson::rfb
