// Frames on their way to a guest that may not take them now. Bounded in number and bytes; keeps the memory of frames
// that have gone for those to come.
//   Threads  under the device lock
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <utility>
#include <vector>

namespace caisson {

class FrameQueue {
 public:
  static constexpr size_t most_frames = 1024;
  static constexpr size_t most_bytes = 8 << 20;
  static constexpr size_t most_spare = 64;

  // False: full, the frame is dropped.
  bool push(std::span<const uint8_t> frame) {
    if (frames_.size() >= most_frames || frame.size() > most_bytes - bytes_) {
      ++dropped_;
      return false;
    }
    std::vector<uint8_t> copy;
    if (!spare_.empty()) {
      copy = std::move(spare_.back());
      spare_.pop_back();
    }
    copy.assign(frame.begin(), frame.end());
    bytes_ += copy.size();
    frames_.push_back(std::move(copy));
    return true;
  }

  [[nodiscard]] bool empty() const { return frames_.empty(); }
  [[nodiscard]] std::span<uint8_t> front() { return frames_.front(); }
  [[nodiscard]] std::span<uint8_t> back() { return frames_.back(); }
  void pop() {
    bytes_ -= frames_.front().size();
    if (spare_.size() < most_spare) spare_.push_back(std::move(frames_.front()));
    frames_.pop_front();
  }
  void clear() {
    frames_.clear();
    bytes_ = 0;
  }

  // Time to stop bringing more, and to go on.
  [[nodiscard]] bool high() const { return frames_.size() > most_frames / 4 || bytes_ > most_bytes / 4; }
  [[nodiscard]] bool low() const { return frames_.size() <= most_frames / 16 && bytes_ <= most_bytes / 16; }
  [[nodiscard]] uint64_t dropped() const { return dropped_; }

 private:
  std::deque<std::vector<uint8_t>> frames_;
  std::vector<std::vector<uint8_t>> spare_;
  size_t bytes_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace caisson
