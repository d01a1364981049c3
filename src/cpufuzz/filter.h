// What cannot be compared with the host's CPU, and why.
#pragma once

#include <cstdint>

#include "jit/decode/instruction.h"
#include "x86/cpu_model.h"

namespace caisson::cpufuzz {

// Null: comparable. Else the reason.
[[nodiscard]] const char* not_comparable(const jit::Instruction& in);

// The host may have it, no CPU model offers it.
[[nodiscard]] bool never_offered(const jit::Instruction& in);

// Status flags that the manual leaves undefined after it (SDM vol. 2, the instruction's page) and that differ between
// the engine and the host, or between two hosts.
[[nodiscard]] uint64_t undefined_flags(const jit::Instruction& in);

// Where a fault leaves vector state, MXCSR or CR2 to the CPU: it accesses memory piece by piece, or computes before it
// stores.
[[nodiscard]] bool vague_after_fault(const jit::Instruction& in);
// "Exceptions associated with addressing memory … may still be signaled (implementation dependent)" where the mask is
// zero: SDM vol. 2, MASKMOVQ.
[[nodiscard]] bool may_fault_under_zero_mask(const jit::Instruction& in);

}  // namespace caisson::cpufuzz
