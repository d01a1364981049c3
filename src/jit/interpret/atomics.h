// LOCKed read-modify-write on guest RAM: the host's own LOCK, also on unaligned addresses.
#pragma once

#include <cstdint>
#include <cstring>

namespace caisson::jit {

template <class T>
[[nodiscard]] inline T plain_load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

template <class T>
inline void plain_store(uint8_t* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}

// False, with `expected` set to what is there, where *p is not `expected`.
template <class T>
[[nodiscard]] inline bool compare_exchange(uint8_t* p, T& expected, T desired) {
  bool equal;
  asm volatile("lock cmpxchg %[desired], (%[p])"
               : "+a"(expected), "=@ccz"(equal)
               : [p] "r"(p), [desired] "r"(desired)
               : "memory");
  return equal;
}

template <class T>
[[nodiscard]] inline T exchange(uint8_t* p, T value) {
  asm volatile("xchg %[value], (%[p])" : [value] "+r"(value) : [p] "r"(p) : "memory");
  return value;
}

struct Pair {
  uint64_t low = 0, high = 0;
};

// CMPXCHG16B; `p` is 16-byte aligned.
[[nodiscard]] inline bool compare_exchange16(uint8_t* p, Pair& expected, Pair desired) {
  bool equal;
  asm volatile("lock cmpxchg16b (%[p])"
               : "+a"(expected.low), "+d"(expected.high), "=@ccz"(equal)
               : [p] "r"(p), "b"(desired.low), "c"(desired.high)
               : "memory");
  return equal;
}

}  // namespace caisson::jit
