// Refcounts of 1 to 64 bits in a block of them. [Refcount block entry]
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <span>

#include "backend/qcow2/layout.h"

namespace caisson::qcow2 {

// Widths of less than a byte begin in its lowest bits.
[[nodiscard]] inline uint64_t get_refcount(std::span<const uint8_t> block, unsigned order, uint64_t index) {
  const uint8_t* const at = &block[(index << order) / 8];
  switch (order) {
    case 3: return *at;
    case 4: return load<uint16_t>(at);
    case 5: return load<uint32_t>(at);
    case 6: return load<uint64_t>(at);
    default: return static_cast<uint64_t>(*at >> ((index << order) % 8)) & ((1u << (1u << order)) - 1);
  }
}

inline void set_refcount(std::span<uint8_t> block, unsigned order, uint64_t index, uint64_t count) {
  uint8_t* const at = &block[(index << order) / 8];
  switch (order) {
    case 3: *at = static_cast<uint8_t>(count); break;
    case 4: store<uint16_t>(at, static_cast<uint16_t>(count)); break;
    case 5: store<uint32_t>(at, static_cast<uint32_t>(count)); break;
    case 6: store<uint64_t>(at, count); break;
    default: {
      const unsigned shift = (index << order) % 8;
      const unsigned mask = ((1u << (1u << order)) - 1) << shift;
      *at = static_cast<uint8_t>((*at & ~mask) | ((static_cast<unsigned>(count) << shift) & mask));
    }
  }
}

}  // namespace caisson::qcow2
