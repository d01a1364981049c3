// Re-encodes a guest instruction for the host: same opcode, other registers, other memory operand.
//   Source   Intel SDM vol. 2, 2.1 (legacy, REX), 2.3 (VEX), 2.7 (EVEX)
//   Threads  none of its own
#pragma once

#include <array>
#include <cstdint>

#include "jit/decode/instruction.h"
#include "jit/translate/emitter.h"

namespace caisson::jit {

// Guest register number → host register, for this instruction.
using RegisterMap = std::array<int8_t, 16>;

// The map without spilled registers: RSP in R13; R13-R15 must be set where they are used.
[[nodiscard]] constexpr RegisterMap home_registers() {
  return {rax, rcx, rdx, rbx, r13, rbp, rsi, rdi, r8, r9, r10, r11, r12, none, none, none};
}

// `memory`: what stands in place of the memory operand, if there is one. Returns false (nothing written) where the form
// cannot be expressed: a high-byte register together with a REX prefix.
[[nodiscard]] bool rewrite(Emitter& out, const Instruction& in, const RegisterMap& map, const Address* memory);

}  // namespace caisson::jit
