// The Internet checksum (RFC 1071), as network cards put it into frames and check it.
//   Threads  any
#pragma once

#include <cstdint>
#include <span>

namespace caisson::network {

// The 16 bit words, the first byte the high one, and a zero after an odd last byte.
[[nodiscard]] constexpr uint64_t word_sum(std::span<const uint8_t> bytes) {
  uint64_t sum = 0;
  size_t i = 0;
  for (; i + 1 < bytes.size(); i += 2) sum += uint64_t{bytes[i]} << 8 | bytes[i + 1];
  if (i < bytes.size()) sum += uint64_t{bytes[i]} << 8;
  return sum;
}

// Carries added, not complemented.
[[nodiscard]] constexpr uint16_t folded(uint64_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

[[nodiscard]] constexpr uint16_t big16(std::span<const uint8_t> bytes, size_t at) {
  return static_cast<uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}
[[nodiscard]] constexpr uint32_t big32(std::span<const uint8_t> bytes, size_t at) {
  return uint32_t{big16(bytes, at)} << 16 | big16(bytes, at + 2);
}
constexpr void put_big16(std::span<uint8_t> bytes, size_t at, uint16_t value) {
  bytes[at] = static_cast<uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<uint8_t>(value);
}
constexpr void put_big32(std::span<uint8_t> bytes, size_t at, uint32_t value) {
  put_big16(bytes, at, static_cast<uint16_t>(value >> 16));
  put_big16(bytes, at + 2, static_cast<uint16_t>(value));
}

}  // namespace caisson::network
