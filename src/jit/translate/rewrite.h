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

// The map without spilled registers: these must be set where they are used.
[[nodiscard]] constexpr RegisterMap home_registers() {
  RegisterMap map{};
  for (unsigned guest = 0; guest < 16; ++guest) map[guest] = static_cast<int8_t>(home_of(guest));
  return map;
}

// `memory`: what stands in place of the memory operand, if there is one. Returns false (nothing written) where the form
// cannot be expressed: a high-byte register together with a REX prefix.
[[nodiscard]] bool rewrite(Emitter& out, const Instruction& in, const RegisterMap& map, const Address* memory);

}  // namespace caisson::jit
