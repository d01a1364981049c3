// The reference execution of guest instructions, one at a time, in all modes.
//   Source   Intel SDM vol. 2 (instructions) and vol. 3 (system programming)
//   Threads  the vCPU's own thread
#pragma once

#include <cstdint>

#include "jit/cpu.h"
#include "jit/decode/instruction.h"

namespace caisson::jit {

enum class StepResult : uint8_t {
  Done,      // an instruction retired, or an exception was delivered
  Halted,    // HLT: cpu.activity says so
  Shutdown,  // triple fault
  NotAlone,  // nothing has happened: the same again with Cpu::alone set, while no other vCPU runs guest code
};

// Executes one instruction at CS:RIP (of a REP string instruction: a bounded number of iterations, RIP staying on it),
// and delivers the exception it raises. Handles single-step (#DB after the instruction), instruction and data
// breakpoints, the interrupt shadow (a shadow set before the step is cleared by it). Does not look at interrupts.
[[nodiscard]] StepResult step(Cpu& cpu);

// Delivers cpu.fault (which must be raised) through the IDT or IVT; turns it into #DF or Shutdown where the manual says
// so (vol. 3, 6.15, table 6-5).
[[nodiscard]] StepResult deliver_fault(Cpu& cpu);

// Delivers an external interrupt or an NMI (vector 2), from between two instructions.
[[nodiscard]] StepResult deliver_interrupt(Cpu& cpu, uint8_t vector);

// Sets the CPU to its state after INIT (`init`: caches and FPU kept) or RESET; SIPI then starts it at vector << 12.
void reset_cpu(Cpu& cpu, bool init);
void start_at_sipi(Cpu& cpu, uint8_t vector);

// Evaluates a Jcc/SETcc/CMOVcc condition code (0-15) on the given flags.
[[nodiscard]] bool condition(unsigned code, uint64_t rflags);

}  // namespace caisson::jit
