// C++ that translated code calls while the guest's FPU state is live in the host's registers: compiled without vector
// registers, and calls nothing that is not.
#pragma once

#include <cstdint>

#include "jit/cpu.h"

namespace caisson::jit {

struct FillResult {
  uint64_t addend;  // host address = linear address + addend
  uint64_t ok;      // 0: the interpreter must do the access
};

FillResult fill_from_code(Cpu* cpu, uint64_t linear, uint32_t word);
// For a window (translate/windows.cpp): addend and 1, or 0 where it is not plain RAM of one page.
FillResult fill_window_from_code(Cpu* cpu, uint64_t linear, uint32_t word);

// REP MOVS or REP STOS on the registers in `cpu`; `word`: see string_word. 1: done; 0: the interpreter goes on from the
// registers as they are.
uint64_t string_from_code(Cpu* cpu, uint32_t word);

void bring_fpu_back_from_code(Cpu* cpu);

}  // namespace caisson::jit
