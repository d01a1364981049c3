#include "jit/translate/system_path.h"

#include "jit/mmu/mmu.h"
#include "jit/translate/stubs.h"

namespace caisson::jit {
namespace {

using namespace x86;
namespace rf = x86::rflags;

// Flat segments as SYSCALL and SYSRET make them, without looking at descriptors.
void flat_segment(Segment& segment, unsigned selector, uint32_t attributes) {
  segment.base = 0;
  segment.limit = 0xffff'ffff;
  segment.attributes = attributes;
  segment.selector = static_cast<uint16_t>(selector);
}
constexpr uint32_t code_64 = 0xa09b, data_32 = 0xc093, dpl_3 = 3u << 5;

// What the run loop must look at once these flags are in force.
bool flags_need_run_loop(const Cpu& cpu, uint64_t flags, bool user) {
  if (flags & (rf::tf | rf::vm)) return true;
  if ((flags & rf::interrupt) && cpu.interrupts_waiting) return true;
  return user && (flags & rf::ac) && (cpu.cr0 & cr0::am);
}

bool syscall(Cpu& cpu, uint32_t word) {
  if (!(cpu.efer & efer::sce)) return false;
  const uint64_t before = flags_from_ax(cpu.flags_ax, cpu.rflags);
  const uint64_t after = before & ~(cpu.msr(MsrSlot::Sfmask) | rf::rf);
  if (flags_need_run_loop(cpu, after, false)) return false;
  cpu.gpr[Rcx] = cpu.rip + (word >> system_word::length_shift);
  cpu.gpr[R11] = before & ~rf::rf;
  cpu.rip = cpu.msr(MsrSlot::Lstar);
  const unsigned selector = cpu.msr(MsrSlot::Star) >> 32 & 0xfffc;
  flat_segment(cpu.segments[Cs], selector, code_64);
  flat_segment(cpu.segments[Ss], selector + 8, data_32);
  cpu.rflags = after | rf::fixed;
  cpu.flags_ax = flags_to_ax(after);
  update_mode(cpu);
  return true;
}

bool sysret(Cpu& cpu, uint32_t word) {
  if (!(cpu.efer & efer::sce) || cpu.cpl != 0 || !(word & system_word::wide) || !canonical(cpu.gpr[Rcx])) return false;
  const uint64_t flags = cpu.gpr[R11] & 0x3c'7fd7;
  if (flags_need_run_loop(cpu, flags, true)) return false;
  const unsigned selector = static_cast<unsigned>(cpu.msr(MsrSlot::Star) >> 48);
  flat_segment(cpu.segments[Cs], (selector + 16) | 3, code_64 | dpl_3);
  flat_segment(cpu.segments[Ss], (selector + 8) | 3, data_32 | dpl_3);
  cpu.rip = cpu.gpr[Rcx];
  cpu.rflags = flags | rf::fixed;
  cpu.flags_ax = flags_to_ax(flags);
  update_mode(cpu);
  return true;
}

bool segment_base(Cpu& cpu, uint32_t word, bool write) {
  if (!(cpu.cr4 & cr4::fsgsbase)) return false;
  const uint64_t mask = word & system_word::wide ? ~uint64_t{0} : 0xffff'ffff;
  uint64_t& reg = cpu.gpr[word >> system_word::register_shift & 15];
  uint64_t& base = cpu.segments[word & system_word::gs ? Gs : Fs].base;
  if (write) {
    if (!canonical(reg & mask)) return false;
    base = reg & mask;
  } else {
    reg = base & mask;
  }
  cpu.rip += word >> system_word::length_shift;
  return true;
}

}  // namespace

bool run_system(Cpu& cpu, uint32_t word) {
  switch (word & system_word::kind_mask) {
    case system_word::syscall: return syscall(cpu, word);
    case system_word::sysret: return sysret(cpu, word);
    case system_word::read_base: return segment_base(cpu, word, false);
    default: return segment_base(cpu, word, true);
  }
}

}  // namespace caisson::jit
