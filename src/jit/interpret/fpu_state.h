// The guest's XSAVE image (Cpu::xsave, standard format): components by their offsets, vector and mask registers.
//   Source   Intel SDM vol. 1, 13.4 (layout), 13.5 (components)
// Only while the state is in the image: after fpu_put_away().
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "jit/interpret/step.h"

namespace caisson::jit {

namespace xstate {
inline constexpr uint64_t x87 = 1u << 0, sse = 1u << 1, avx = 1u << 2, opmask = 1u << 5, zmm_hi256 = 1u << 6,
                          hi16_zmm = 1u << 7;
inline constexpr unsigned components = 8;
}  // namespace xstate

// Bytes of one component in the image; x87 and SSE are not asked for.
[[nodiscard]] std::span<uint8_t> component(Cpu& cpu, unsigned number);

using VectorBytes = std::array<uint8_t, 64>;
[[nodiscard]] VectorBytes read_vector(Cpu& cpu, unsigned number);
// Writes the low `bytes` (16, 32, 64) and clears the rest up to 64, as VEX and EVEX instructions do.
void write_vector(Cpu& cpu, unsigned number, const VectorBytes& value, unsigned bytes);
[[nodiscard]] uint64_t read_mask(Cpu& cpu, unsigned number);
void write_mask(Cpu& cpu, unsigned number, uint64_t value);
[[nodiscard]] uint32_t guest_mxcsr(Cpu& cpu);

}  // namespace caisson::jit
