#include "backend/rfb/frame.h"

#include <algorithm>
#include <utility>

namespace caisson::rfb {
namespace {

Frame fit(Frame frame) {
  if (frame.width == 0 || frame.height == 0) return {};
  if (frame.width <= most_side && frame.height <= most_side) return frame;
  Frame out{std::min(frame.width, most_side), std::min(frame.height, most_side), {}};
  out.pixels.reserve(size_t{out.width} * out.height);
  for (unsigned y = 0; y < out.height; ++y) {
    const auto row = frame.pixels.begin() + static_cast<ptrdiff_t>(size_t{y} * frame.width);
    out.pixels.insert(out.pixels.end(), row, row + out.width);
  }
  return out;
}

}  // namespace

void TiledFrame::replace(Frame next) {
  next = fit(std::move(next));
  ++version_;
  if (next.width != frame_.width || next.height != frame_.height) {
    versions_.fill(version_);
    frame_ = std::move(next);
    return;
  }
  for (unsigned top = 0; top < next.height; top += tile) {
    const unsigned bottom = std::min(top + tile, next.height);
    for (unsigned left = 0; left < next.width; left += tile) {
      const unsigned length = std::min(tile, next.width - left);
      for (unsigned y = top; y < bottom; ++y) {
        const size_t at = size_t{y} * next.width + left;
        if (std::equal(next.pixels.begin() + static_cast<ptrdiff_t>(at),
                       next.pixels.begin() + static_cast<ptrdiff_t>(at + length),
                       frame_.pixels.begin() + static_cast<ptrdiff_t>(at))) {
          continue;
        }
        versions_[size_t{top / tile} * grid + left / tile] = version_;
        break;
      }
    }
  }
  frame_ = std::move(next);
}

}  // namespace caisson::rfb
