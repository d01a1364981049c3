// Decoded instructions by linear address, checked against the bytes in memory at each use: needs no invalidation.
//   Threads  one per vCPU, on its thread
#pragma once

#include <array>
#include <cstring>
#include <memory>
#include <span>

#include "jit/interpret/step.h"

namespace caisson::jit {

class DecodeCache {
 public:
  static constexpr uint64_t empty = 0x8000'0000'0000'0000;  // not canonical

  struct Entry {
    uint64_t linear = empty;
    Handler handler = nullptr;
    // The instruction's bytes, and which of the sixteen there are.
    std::array<uint64_t, 2> bytes{}, mask{};
    uint8_t code_bits = 0;
    Instruction in;

    // `code`: sixteen readable bytes.
    [[nodiscard]] bool matches(const uint8_t* code) const {
      uint64_t low, high;
      std::memcpy(&low, code, 8);
      std::memcpy(&high, code + 8, 8);
      return (((low ^ bytes[0]) & mask[0]) | ((high ^ bytes[1]) & mask[1])) == 0;
    }

    // The same for what is at least as long as any instruction.
    [[nodiscard]] bool starts(std::span<const uint8_t> code) const {
      return std::memcmp(code.data(), in.bytes.data(), in.length) == 0;
    }

    void set_key(uint64_t address, uint8_t mode) {
      linear = address;
      code_bits = mode;
      std::array<uint8_t, 16> code{}, valid{};
      std::memcpy(code.data(), in.bytes.data(), in.length);
      std::memset(valid.data(), 0xff, in.length);
      std::memcpy(bytes.data(), code.data(), 16);
      std::memcpy(mask.data(), valid.data(), 16);
    }
  };

  [[nodiscard]] const Entry& entry(uint64_t linear) const { return entries_[index(linear)]; }
  [[nodiscard]] Entry& entry(uint64_t linear) { return entries_[index(linear)]; }

 private:
  static constexpr size_t size = 2048;
  [[nodiscard]] static size_t index(uint64_t linear) { return (linear ^ linear >> 11) & (size - 1); }
  std::array<Entry, size> entries_;
};

// For Cpu::interpreter.
[[nodiscard]] inline std::unique_ptr<DecodeCache, void (*)(DecodeCache*)> make_decode_cache() {
  return {new DecodeCache, [](DecodeCache* cache) { delete cache; }};
}

}  // namespace caisson::jit
