// Runs one x87, MMX or vector instruction on the host CPU, on the guest's FPU state.
//   The instruction is encoded anew: its memory operand becomes [RSI], its general register (there is at most one) RBX;
//   RAX, RCX and RDX are the guest's for the few that use them implicitly. Code stands in a small buffer per thread,
//   mapped twice, so that no page is ever writable and executable. Threads  each has its own buffer; the signal
//   handlers look only at the thread they run on
#pragma once

#include <cstdint>

#include "jit/cpu.h"
#include "jit/decode/instruction.h"

namespace caisson::jit {

struct NativeBlock {
  uint64_t rax = 0, rcx = 0, rdx = 0;
  uint64_t general = 0;          // the general register operand
  const void* memory = nullptr;  // the memory operand
  uint64_t flags = 0;            // status flags
};

// What the host raised instead of completing the instruction: a vector, or none.
inline constexpr int native_completed = -1;

// Null where there is no way to run it (an encoding that this file does not know).
using NativeCode = void (*)(NativeBlock*);
[[nodiscard]] NativeCode native_code(const Instruction& in, unsigned code_bits);

// Loads the guest's state, runs the code, puts the state away.
[[nodiscard]] int run_native(Cpu& cpu, NativeCode code, NativeBlock& block);

// For SIGFPE, SIGSEGV and SIGILL handlers, first thing: true when the signal came from a thunk and has been dealt with.
[[nodiscard]] bool recover_native_thunk(void* ucontext);
// Installs handlers that do just that and pass everything else on to the handlers before them. Done at the first thunk;
// an engine with handlers of its own, which call recover_native_thunk(), sets them up afterwards.
void install_native_signals();

}  // namespace caisson::jit
