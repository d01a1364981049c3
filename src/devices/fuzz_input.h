// A fuzzer's input, taken from its front. What is missing at the end is zeroes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "bus/power.h"

namespace caisson::fuzz {

class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  uint64_t take(size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size && !bytes_.empty(); ++i) {
      value |= uint64_t{bytes_[0]} << (8 * i);
      bytes_ = bytes_.subspan(1);
    }
    return value;
  }
  std::span<const uint8_t> take_bytes(size_t size) {
    const auto front = bytes_.first(std::min(size, bytes_.size()));
    bytes_ = bytes_.subspan(front.size());
    return front;
  }

 private:
  std::span<const uint8_t> bytes_;
};

class NoPower final : public PowerSink {
 public:
  void request(PowerEvent, uint8_t) override {}
};

}  // namespace caisson::fuzz
