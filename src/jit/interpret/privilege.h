// Modes and RFLAGS as the privilege checks see them.
//   Source   Intel SDM vol. 3, 2.3 (RFLAGS), chapter 5
#pragma once

#include "jit/cpu.h"

namespace caisson::jit {

[[nodiscard]] inline bool virtual_8086(const Cpu& cpu) { return cpu.rflags & x86::rflags::vm; }
[[nodiscard]] inline bool protected_mode(const Cpu& cpu) { return (cpu.cr0 & x86::cr0::pe) && !virtual_8086(cpu); }
[[nodiscard]] inline unsigned iopl(const Cpu& cpu) { return static_cast<unsigned>(cpu.rflags >> 12 & 3); }

// Sets all of RFLAGS; AC and VM take part in the mode.
inline void set_flags(Cpu& cpu, uint64_t flags) {
  namespace rf = x86::rflags;
  constexpr uint64_t known = rf::status | rf::tf | rf::interrupt | rf::df | rf::iopl | rf::nt | rf::rf | rf::vm |
                             rf::ac | rf::vif | rf::vip | rf::id;
  const uint64_t changed = cpu.rflags ^ flags;
  cpu.rflags = (flags & known) | rf::fixed;
  if (changed & (rf::ac | rf::vm)) update_mode(cpu);
}

// #GP(0) unless CPL is 0 (VM86 counts as 3).
[[nodiscard]] inline bool require_cpl0(Cpu& cpu) { return cpu.cpl == 0 || raise(cpu, x86::Gp, 0); }

}  // namespace caisson::jit
