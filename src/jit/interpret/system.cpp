// CPUID, time stamps, random numbers, HLT, the interrupt and alignment flags, caches, fences.
//   Source   Intel SDM vol. 2; vol. 3, 21.3.2 (VIF), 17.17 (time-stamp counter)
// MONITOR, MWAIT, VMX, SVM, RTM and the rest of what no model offers have no handler and raise #UD.
#include "jit/interpret/operands.h"
#include "jit/interpret/privilege.h"

namespace caisson::jit {
namespace {

using namespace x86;
namespace rf = x86::rflags;

bool cpuid(Step& step) {
  Cpu& cpu = step.cpu;
  const CpuModel::Context context{.apic_id = cpu.index,
                                  .cr4 = cpu.cr4,
                                  .xcr0 = cpu.xcr0,
                                  .apic_enabled = (cpu.interrupts->apic_base() >> 11 & 1) != 0};
  const CpuidResult result =
      cpu.model->cpuid(static_cast<uint32_t>(cpu.gpr[Rax]), static_cast<uint32_t>(cpu.gpr[Rcx]), context);
  cpu.gpr[Rax] = result.eax;
  cpu.gpr[Rbx] = result.ebx;
  cpu.gpr[Rcx] = result.ecx;
  cpu.gpr[Rdx] = result.edx;
  return true;
}

bool read_time(Cpu& cpu) {
  if ((cpu.cr4 & cr4::tsd) && (cpu.cr0 & cr0::pe) && cpu.cpl > 0) return raise(cpu, Gp, 0);
  const uint64_t tsc = cpu.clock->tsc() + cpu.tsc_offset;
  cpu.gpr[Rax] = tsc & 0xffff'ffff;
  cpu.gpr[Rdx] = tsc >> 32;
  return true;
}

bool rdtsc(Step& step) { return read_time(step.cpu); }

bool rdtscp(Step& step) {
  Cpu& cpu = step.cpu;
  if (!cpu.model->has(Feature::Rdtscp)) return raise(cpu, Ud);
  if (!read_time(cpu)) return false;
  cpu.gpr[Rcx] = cpu.msr(MsrSlot::TscAux);
  return true;
}

bool rdpid(Step& step) {
  Cpu& cpu = step.cpu;
  if (!cpu.model->has(Feature::Rdpid)) return raise(cpu, Ud);
  cpu.gpr[step.in.operands[0].reg] = cpu.msr(MsrSlot::TscAux);
  return true;
}

// No performance counters: every index is out of range.
bool rdpmc(Step& step) { return raise(step.cpu, Gp, 0); }

template <bool Seed, class T>
bool random(Step& step) {
  if constexpr (sizeof(T) == 1) {
    return raise(step.cpu, Ud);
  } else {
    Cpu& cpu = step.cpu;
    if (!cpu.model->has(Seed ? Feature::Rdseed : Feature::Rdrand)) return raise(cpu, Ud);
    uint64_t value;
    bool carry;
    if constexpr (Seed) {
      asm volatile("rdseed %0" : "=r"(value), "=@ccc"(carry));
    } else {
      asm volatile("rdrand %0" : "=r"(value), "=@ccc"(carry));
    }
    set_register<T>(cpu, step.in.operands[0], carry ? static_cast<T>(value) : T{0});
    cpu.rflags = (cpu.rflags & ~rf::status) | (carry ? rf::cf : 0);
    return true;
  }
}

bool hlt(Step& step) {
  if (!require_cpl0(step.cpu)) return false;
  step.cpu.activity = Activity::Halted;
  step.halted = true;
  return true;
}

// Which flag CLI and STI work on: IF, or VIF with VME and PVI; #GP(0) where neither may be touched.
bool interrupt_flag(Cpu& cpu, uint64_t& flag) {
  flag = rf::interrupt;
  if (!(cpu.cr0 & cr0::pe) || cpu.cpl <= iopl(cpu)) return true;
  flag = rf::vif;
  if (virtual_8086(cpu) ? (cpu.cr4 & cr4::vme) != 0 : cpu.cpl == 3 && (cpu.cr4 & cr4::pvi)) return true;
  return raise(cpu, Gp, 0);
}

bool cli(Step& step) {
  uint64_t flag;
  if (!interrupt_flag(step.cpu, flag)) return false;
  step.cpu.rflags &= ~flag;
  return true;
}

bool sti(Step& step) {
  Cpu& cpu = step.cpu;
  uint64_t flag;
  if (!interrupt_flag(cpu, flag)) return false;
  if (flag == rf::vif && (cpu.rflags & rf::vip)) return raise(cpu, Gp, 0);
  if (flag == rf::interrupt && !(cpu.rflags & rf::interrupt)) cpu.interrupt_shadow = 1;
  cpu.rflags |= flag;
  return true;
}

template <bool Set>
bool access_control(Step& step) {
  Cpu& cpu = step.cpu;
  if (!cpu.model->has(Feature::Smap) || cpu.cpl > 0) return raise(cpu, Ud);
  set_flags(cpu, Set ? cpu.rflags | rf::ac : cpu.rflags & ~rf::ac);
  return true;
}

bool invalidate_caches(Step& step) { return require_cpl0(step.cpu); }

// A cache-line flush is checked like a load of one byte.
bool flush_line(Step& step) {
  Cpu& cpu = step.cpu;
  if (step.in.mnemonic == ZYDIS_MNEMONIC_CLFLUSHOPT && !cpu.model->has(Feature::Clflushopt)) return raise(cpu, Ud);
  if (step.in.mnemonic == ZYDIS_MNEMONIC_CLWB && !cpu.model->has(Feature::Clwb)) return raise(cpu, Ud);
  uint64_t linear;
  return operand_address(step, step.in.operands[0], 1, false, linear) && mmu::probe(cpu, linear, 1, Access::Read);
}

bool fence(Step&) {
  asm volatile("mfence" ::: "memory");
  return true;
}

}  // namespace

void add_system(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_CPUID, cpuid);
  table.set(ZYDIS_MNEMONIC_RDTSC, rdtsc);
  table.set(ZYDIS_MNEMONIC_RDTSCP, rdtscp);
  table.set(ZYDIS_MNEMONIC_RDPID, rdpid);
  table.set(ZYDIS_MNEMONIC_RDPMC, rdpmc);
  table.sized(ZYDIS_MNEMONIC_RDRAND, []<class T>() -> Handler { return random<false, T>; });
  table.sized(ZYDIS_MNEMONIC_RDSEED, []<class T>() -> Handler { return random<true, T>; });
  table.set(ZYDIS_MNEMONIC_HLT, hlt);
  table.set(ZYDIS_MNEMONIC_CLI, cli);
  table.set(ZYDIS_MNEMONIC_STI, sti);
  table.set(ZYDIS_MNEMONIC_STAC, access_control<true>);
  table.set(ZYDIS_MNEMONIC_CLAC, access_control<false>);
  table.set({ZYDIS_MNEMONIC_INVD, ZYDIS_MNEMONIC_WBINVD}, invalidate_caches);
  table.set({ZYDIS_MNEMONIC_CLFLUSH, ZYDIS_MNEMONIC_CLFLUSHOPT, ZYDIS_MNEMONIC_CLWB}, flush_line);
  table.set({ZYDIS_MNEMONIC_LFENCE, ZYDIS_MNEMONIC_MFENCE, ZYDIS_MNEMONIC_SFENCE}, fence);
}

}  // namespace caisson::jit
