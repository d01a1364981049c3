// Arithmetic on the host's own ALU, with the guest's status flags going in and coming out: results and flags, undefined
// ones included, are those of the host CPU.
//   Source   Intel SDM vol. 1, 3.4.3.1
// LAHF/SETO and ADD/SAHF move the flags in a few cycles where PUSHF/POPF would take thirty.
#pragma once

#include <cstdint>

#include "x86/registers.h"

namespace caisson::jit {

// AH: SF ZF AF PF CF, AL: OF.
[[nodiscard]] inline uint16_t pack_flags(uint64_t rflags) {
  return static_cast<uint16_t>((rflags & 0xff) << 8 | (rflags >> 11 & 1));
}

[[nodiscard]] inline uint64_t unpack_flags(uint64_t rflags, uint16_t ax) {
  return (rflags & ~x86::rflags::status) | (ax >> 8 & 0xd5) | static_cast<uint64_t>(ax & 1) << 11;
}

#define CAISSON_FLAGS_IN "addb $0x7f, %%al\n\tsahf\n\t"
#define CAISSON_FLAGS_OUT "\n\tlahf\n\tseto %%al"

// struct Name { template <class T> static T run(T a, T b, uint64_t& flags); } for "op b, a".
#define CAISSON_NATIVE_BINARY(Name, op)                                                                       \
  struct Name {                                                                                               \
    template <class T>                                                                                        \
    [[gnu::always_inline]] static inline T run(T a, T b, uint64_t& flags) {                                   \
      uint16_t ax = pack_flags(flags);                                                                        \
      asm(CAISSON_FLAGS_IN op " %[b], %[a]" CAISSON_FLAGS_OUT : [a] "+&r"(a), "+&a"(ax) : [b] "r"(b) : "cc"); \
      flags = unpack_flags(flags, ax);                                                                        \
      return a;                                                                                               \
    }                                                                                                         \
  };

// struct Name { template <class T> static T run(T a, uint64_t& flags); } for "op a".
#define CAISSON_NATIVE_UNARY(Name, op)                                                       \
  struct Name {                                                                              \
    template <class T>                                                                       \
    [[gnu::always_inline]] static inline T run(T a, uint64_t& flags) {                       \
      uint16_t ax = pack_flags(flags);                                                       \
      asm(CAISSON_FLAGS_IN op " %[a]" CAISSON_FLAGS_OUT : [a] "+&r"(a), "+&a"(ax) : : "cc"); \
      flags = unpack_flags(flags, ax);                                                       \
      return a;                                                                              \
    }                                                                                        \
  };

// struct Name { template <class T> static T run(T a, uint8_t count, uint64_t& flags); } for "op cl, a".
#define CAISSON_NATIVE_SHIFT(Name, op)                                                                        \
  struct Name {                                                                                               \
    template <class T>                                                                                        \
    [[gnu::always_inline]] static inline T run(T a, uint8_t count, uint64_t& flags) {                         \
      uint16_t ax = pack_flags(flags);                                                                        \
      asm(CAISSON_FLAGS_IN op " %%cl, %[a]" CAISSON_FLAGS_OUT : [a] "+&r"(a), "+&a"(ax) : "c"(count) : "cc"); \
      flags = unpack_flags(flags, ax);                                                                        \
      return a;                                                                                               \
    }                                                                                                         \
  };

}  // namespace caisson::jit
