// System instructions that come so often that they are done between two blocks, without the run loop and the
// interpreter.
//   Source   Intel SDM vol. 2, SYSCALL, SYSRET, RDFSBASE, WRFSBASE
//   Threads  the vCPU's own, in guest mode; compiled without vector registers
#pragma once

#include <cstdint>

#include "jit/cpu.h"
#include "x86/registers.h"

namespace caisson::jit {

// Status flags between RFLAGS and the form that LAHF and SETO leave: AH = SF ZF 0 AF 0 PF 1 CF, AL = OF.
[[nodiscard]] inline uint32_t flags_to_ax(uint64_t rflags) {
  return static_cast<uint32_t>((rflags & 0xd5) << 8 | 0x200 | ((rflags & x86::rflags::of) ? 1 : 0));
}
[[nodiscard]] inline uint64_t flags_from_ax(uint32_t ax, uint64_t rflags) {
  return (rflags & ~x86::rflags::status) | (ax >> 8 & 0xd5) | ((ax & 1) ? x86::rflags::of : 0);
}

// The instruction at cpu.rip, told by its system word (translate/stubs.h); status flags are in cpu.flags_ax before and
// after. False: nothing has happened, it is for the interpreter (a fault, or something the run loop must see).
[[nodiscard]] bool run_system(Cpu& cpu, uint32_t word);

}  // namespace caisson::jit
