// SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, RDFSBASE and its kin.
//   Source   Intel SDM vol. 2; vol. 3, 5.8.7, 5.8.8
#include "jit/interpret/operands.h"
#include "jit/interpret/privilege.h"

namespace caisson::jit {
namespace {

using namespace x86;
namespace rf = x86::rflags;

// Flat segments as these instructions make them, without looking at descriptors.
Segment code64(unsigned selector, unsigned dpl) {
  return {
      .base = 0, .limit = 0xffff'ffff, .attributes = 0xa09b | dpl << 5, .selector = static_cast<uint16_t>(selector)};
}
Segment code32(unsigned selector, unsigned dpl) {
  return {
      .base = 0, .limit = 0xffff'ffff, .attributes = 0xc09b | dpl << 5, .selector = static_cast<uint16_t>(selector)};
}
Segment stack(unsigned selector, unsigned dpl) {
  return {
      .base = 0, .limit = 0xffff'ffff, .attributes = 0xc093 | dpl << 5, .selector = static_cast<uint16_t>(selector)};
}

bool syscall(Step& step) {
  Cpu& cpu = step.cpu;
  if (cpu.code_bits != 64 || !(cpu.efer & efer::sce)) return raise(cpu, Ud);
  const uint64_t star = cpu.msr(MsrSlot::Star);
  cpu.gpr[Rcx] = step.next;
  cpu.gpr[R11] = cpu.rflags & ~rf::rf;
  step.next = cpu.msr(MsrSlot::Lstar);
  const unsigned selector = star >> 32 & 0xfffc;
  cpu.segments[Cs] = code64(selector, 0);
  cpu.segments[Ss] = stack(selector + 8, 0);
  set_flags(cpu, cpu.rflags & ~(cpu.msr(MsrSlot::Sfmask) | rf::rf));
  update_mode(cpu);
  step.inhibit_trap = !(cpu.rflags & rf::tf);
  return true;
}

bool sysret(Step& step) {
  Cpu& cpu = step.cpu;
  if (cpu.code_bits != 64 || !(cpu.efer & efer::sce)) return raise(cpu, Ud);
  if (!require_cpl0(cpu)) return false;
  const bool wide = step.in.operand_bits == 64;
  const uint64_t target = wide ? cpu.gpr[Rcx] : cpu.gpr[Rcx] & 0xffff'ffff;
  if (!canonical(target)) return raise(cpu, Gp, 0);
  const unsigned selector = static_cast<unsigned>(cpu.msr(MsrSlot::Star) >> 48);
  cpu.segments[Cs] = wide ? code64((selector + 16) | 3, 3) : code32(selector | 3, 3);
  cpu.segments[Ss] = stack((selector + 8) | 3, 3);
  set_flags(cpu, cpu.gpr[R11] & 0x3c'7fd7);
  update_mode(cpu);
  step.next = target;
  return true;
}

bool sysenter(Step& step) {
  Cpu& cpu = step.cpu;
  const unsigned selector = static_cast<unsigned>(cpu.msr(MsrSlot::SysenterCs) & 0xfffc);
  if (!(cpu.cr0 & cr0::pe) || selector == 0) return raise(cpu, Gp, 0);
  cpu.segments[Cs] = cpu.long_mode ? code64(selector, 0) : code32(selector, 0);
  cpu.segments[Ss] = stack(selector + 8, 0);
  set_flags(cpu, cpu.rflags & ~(rf::vm | rf::interrupt | rf::rf));
  update_mode(cpu);
  const uint64_t mask = cpu.long_mode ? ~uint64_t{0} : 0xffff'ffff;
  cpu.gpr[Rsp] = cpu.msr(MsrSlot::SysenterEsp) & mask;
  step.next = cpu.msr(MsrSlot::SysenterEip) & mask;
  return true;
}

bool sysexit(Step& step) {
  Cpu& cpu = step.cpu;
  const unsigned selector = static_cast<unsigned>(cpu.msr(MsrSlot::SysenterCs) & 0xfffc);
  if (!(cpu.cr0 & cr0::pe) || selector == 0) return raise(cpu, Gp, 0);
  if (!require_cpl0(cpu)) return false;
  const bool wide = step.in.operand_bits == 64;
  const uint64_t target = cpu.gpr[Rdx], pointer = cpu.gpr[Rcx];
  if (wide && (!canonical(target) || !canonical(pointer))) return raise(cpu, Gp, 0);
  cpu.segments[Cs] = wide ? code64((selector + 32) | 3, 3) : code32((selector + 16) | 3, 3);
  cpu.segments[Ss] = stack((selector + (wide ? 40 : 24)) | 3, 3);
  update_mode(cpu);
  cpu.gpr[Rsp] = wide ? pointer : pointer & 0xffff'ffff;
  step.next = wide ? target : target & 0xffff'ffff;
  return true;
}

bool swapgs(Step& step) {
  Cpu& cpu = step.cpu;
  if (cpu.code_bits != 64) return raise(cpu, Ud);
  if (!require_cpl0(cpu)) return false;
  std::swap(cpu.segments[Gs].base, cpu.msr(MsrSlot::KernelGsBase));
  return true;
}

template <SegmentRegister Reg, bool Write>
bool segment_base(Step& step) {
  Cpu& cpu = step.cpu;
  if (cpu.code_bits != 64 || !(cpu.cr4 & cr4::fsgsbase)) return raise(cpu, Ud);
  uint64_t& reg = cpu.gpr[step.in.operands[0].reg];
  const uint64_t mask = step.in.operand_bits == 64 ? ~uint64_t{0} : 0xffff'ffff;
  if (Write) {
    if (!canonical(reg & mask)) return raise(cpu, Gp, 0);
    cpu.segments[Reg].base = reg & mask;
  } else {
    reg = cpu.segments[Reg].base & mask;
  }
  return true;
}

}  // namespace

void add_syscalls(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_SYSCALL, syscall);
  table.set(ZYDIS_MNEMONIC_SYSRET, sysret);
  table.set(ZYDIS_MNEMONIC_SYSENTER, sysenter);
  table.set(ZYDIS_MNEMONIC_SYSEXIT, sysexit);
  table.set(ZYDIS_MNEMONIC_SWAPGS, swapgs);
  table.set(ZYDIS_MNEMONIC_RDFSBASE, segment_base<Fs, false>);
  table.set(ZYDIS_MNEMONIC_RDGSBASE, segment_base<Gs, false>);
  table.set(ZYDIS_MNEMONIC_WRFSBASE, segment_base<Fs, true>);
  table.set(ZYDIS_MNEMONIC_WRGSBASE, segment_base<Gs, true>);
}

}  // namespace caisson::jit
