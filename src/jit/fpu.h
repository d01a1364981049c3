// Where the guest's x87/SSE/AVX/AVX-512 state is: in Cpu::xsave (cpu.fpu_live false) or in the host's registers (true).
// C++ code may use vector registers at any time, so the run loop puts the state away before it runs general code.
//   Threads  the vCPU's own thread
#pragma once

#include "jit/cpu.h"

namespace caisson::jit {

// The XSAVE components that guests can have at all on this host (x87, SSE, AVX, AVX-512), as an XCR0 mask.
[[nodiscard]] uint64_t fpu_components();
void fpu_init(Cpu& cpu);      // the state after reset (FINIT, MXCSR 1F80h)
void fpu_put_away(Cpu& cpu);  // host registers → cpu.xsave, if live
// cpu.xsave → host registers. Between this and fpu_put_away() only code that keeps off vector registers may run.
void fpu_bring_back(Cpu& cpu);

}  // namespace caisson::jit
