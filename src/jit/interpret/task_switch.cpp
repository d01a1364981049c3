// Task switches through TSS descriptors and task gates, 16- and 32-bit.
//   Source   Intel SDM vol. 3, 7.2 (TSS layout), 7.3 (the switch and the order of its checks), 7.6 (16-bit TSS)
#include "jit/interpret/task_switch.h"

#include "jit/interpret/control_registers.h"
#include "jit/interpret/operands.h"
#include "jit/interpret/privilege.h"

namespace caisson::jit {
namespace {

using namespace x86;

struct Task {
  std::array<uint32_t, 8> gpr{};
  uint32_t eip = 0, eflags = 0, cr3 = 0;
  std::array<uint16_t, 6> selectors{};  // ES CS SS DS FS GS
  uint16_t ldt = 0;
  bool trap = false;
};

// Offsets in the TSS of what a switch saves and loads.
constexpr unsigned eip32 = 0x20, gpr32 = 0x28, segments32 = 0x48, ldt32 = 0x60, trap32 = 0x64, cr3_32 = 0x1c;
constexpr unsigned ip16 = 0x0e, gpr16 = 0x12, segments16 = 0x22, ldt16 = 0x2a;
constexpr unsigned limit32 = 0x67, limit16 = 0x2b;

uint64_t at(uint64_t base, unsigned offset) { return (base + offset) & 0xffff'ffff; }

bool read_task(Cpu& cpu, uint64_t base, bool wide, Task& task) {
  if (wide) {
    std::array<uint32_t, 10> registers;
    if (!mmu::read_bytes(cpu, at(base, eip32), registers.data(), sizeof registers, As::System)) return false;
    task.eip = registers[0];
    task.eflags = registers[1];
    std::copy(registers.begin() + 2, registers.end(), task.gpr.begin());
    std::array<uint32_t, 6> selectors;
    if (!mmu::read_bytes(cpu, at(base, segments32), selectors.data(), sizeof selectors, As::System)) return false;
    for (unsigned i = 0; i < 6; ++i) task.selectors[i] = static_cast<uint16_t>(selectors[i]);
    uint16_t trap;
    if (!mmu::read(cpu, at(base, cr3_32), task.cr3, As::System) ||
        !mmu::read(cpu, at(base, ldt32), task.ldt, As::System) || !mmu::read(cpu, at(base, trap32), trap, As::System)) {
      return false;
    }
    task.trap = trap & 1;
    return true;
  }
  std::array<uint16_t, 15> words;  // IP FLAGS, 8 registers, ES CS SS DS, LDT
  static_assert(ip16 + 2 * 14 == ldt16 && gpr16 == ip16 + 4 && segments16 == gpr16 + 16);
  if (!mmu::read_bytes(cpu, at(base, ip16), words.data(), sizeof words, As::System)) return false;
  task.eip = words[0];
  task.eflags = words[1];
  for (unsigned i = 0; i < 8; ++i) task.gpr[i] = 0xffff'0000u | words[2 + i];
  for (unsigned i = 0; i < 4; ++i) task.selectors[i] = words[10 + i];
  task.ldt = words[14];
  return true;
}

bool write_task(Cpu& cpu, uint64_t next, uint32_t eflags) {
  const uint64_t base = cpu.tr.base;
  if (cpu.tr.type() & 8) {
    std::array<uint32_t, 10> registers;
    registers[0] = static_cast<uint32_t>(next);
    registers[1] = eflags;
    for (unsigned i = 0; i < 8; ++i) registers[2 + i] = static_cast<uint32_t>(cpu.gpr[i]);
    std::array<uint32_t, 6> selectors;
    for (unsigned i = 0; i < 6; ++i) selectors[i] = cpu.segments[i].selector;
    return mmu::write_bytes(cpu, at(base, eip32), registers.data(), sizeof registers, As::System) &&
           mmu::write_bytes(cpu, at(base, segments32), selectors.data(), sizeof selectors, As::System);
  }
  std::array<uint16_t, 14> words;
  words[0] = static_cast<uint16_t>(next);
  words[1] = static_cast<uint16_t>(eflags);
  for (unsigned i = 0; i < 8; ++i) words[2 + i] = static_cast<uint16_t>(cpu.gpr[i]);
  for (unsigned i = 0; i < 4; ++i) words[10 + i] = cpu.segments[i].selector;
  return mmu::write_bytes(cpu, at(base, ip16), words.data(), sizeof words, As::System);
}

bool load_ldt(Cpu& cpu, uint16_t selector, uint32_t ext) {
  cpu.ldtr = null_segment(selector);
  if (null_selector(selector)) return true;
  Descriptor descriptor;
  if (selector & 4) return raise(cpu, Ts, selector_error(selector) | ext);
  if (!read_descriptor(cpu, selector, descriptor, Ts, ext)) return false;
  if (descriptor.code_or_data() || descriptor.type() != Ldt || !descriptor.present()) {
    return raise(cpu, Ts, selector_error(selector) | ext);
  }
  cpu.ldtr = descriptor.segment(selector);
  return true;
}

bool load_code(Cpu& cpu, uint16_t selector, uint32_t ext) {
  Descriptor code;
  const unsigned rpl = selector & 3;
  if (null_selector(selector)) return raise(cpu, Ts, ext);
  if (!read_descriptor(cpu, selector, code, Ts, ext)) return false;
  const uint32_t error = selector_error(selector) | ext;
  if (!code.code() || (code.conforming() ? code.dpl() > rpl : code.dpl() != rpl)) return raise(cpu, Ts, error);
  if (!code.present()) return raise(cpu, Np, error);
  if (!set_accessed(cpu, code)) return false;
  cpu.segments[Cs] = code.segment(selector);
  return true;
}

bool load_data(Cpu& cpu, unsigned reg, uint16_t selector, uint32_t ext) {
  if (null_selector(selector)) return true;
  Descriptor data;
  if (!read_descriptor(cpu, selector, data, Ts, ext)) return false;
  const uint32_t error = selector_error(selector) | ext;
  if (!data.readable()) return raise(cpu, Ts, error);
  if (!(data.code() && data.conforming()) && (data.dpl() < cpu.cpl || data.dpl() < (selector & 3u))) {
    return raise(cpu, Ts, error);
  }
  if (!data.present()) return raise(cpu, Np, error);
  if (!set_accessed(cpu, data)) return false;
  cpu.segments[reg] = data.segment(selector);
  return true;
}

bool load_segments(Cpu& cpu, const Task& task, uint32_t ext) {
  if (virtual_8086(cpu)) {
    for (unsigned reg = 0; reg < 6; ++reg) cpu.segments[reg] = real_segment(cpu, reg, task.selectors[reg]);
    update_mode(cpu);
    return true;
  }
  if (!load_code(cpu, task.selectors[Cs], ext)) return false;
  const unsigned cpl = task.selectors[Cs] & 3;
  Descriptor stack;
  if (!check_stack_segment(cpu, task.selectors[Ss], cpl, Ts, ext, stack) || !set_accessed(cpu, stack)) return false;
  cpu.segments[Ss] = stack.segment(task.selectors[Ss]);
  update_mode(cpu);
  for (const unsigned reg : {Ds, Es, Fs, Gs}) {
    if (!load_data(cpu, reg, task.selectors[reg], ext)) return false;
  }
  return cpu.rip <= cpu.segments[Cs].limit || raise(cpu, Gp, ext);
}

}  // namespace

bool switch_task(Cpu& cpu, uint16_t selector, Descriptor& tss, TaskReason reason, uint64_t next, uint32_t ext,
                 bool& trap) {
  const bool wide = tss.type() & 8;
  const uint32_t error = selector_error(selector) | ext;
  if (!tss.present()) return raise(cpu, Np, error);
  if (tss.limit() < (wide ? limit32 : limit16)) return raise(cpu, Ts, error);
  const uint64_t base = tss.base();
  Task task;
  if (!read_task(cpu, base, wide, task)) return false;

  // The old task: state into its TSS, busy bit off unless the new one nests.
  const bool nested = reason == TaskReason::Call || reason == TaskReason::Event;
  uint32_t old_flags = static_cast<uint32_t>(cpu.rflags);
  if (reason == TaskReason::Return) old_flags &= ~static_cast<uint32_t>(rflags::nt);
  if (!write_task(cpu, next, old_flags)) return false;
  if (nested) {
    const uint16_t link = cpu.tr.selector;
    if (!mmu::write(cpu, at(base, 0), link, As::System)) return false;
  } else {
    Descriptor old;
    if (!read_descriptor(cpu, cpu.tr.selector, old, Ts, ext) || !set_busy(cpu, old, false)) return false;
  }
  if (reason != TaskReason::Return && !set_busy(cpu, tss, true)) return false;

  // From here on faults belong to the new task.
  cpu.tr = tss.segment(selector);
  cpu.tr.attributes |= 2;
  cpu.cr0 |= cr0::ts;
  if (wide && cpu.paging && !set_cr3(cpu, task.cr3)) return false;
  cpu.rip = task.eip;
  for (unsigned i = 0; i < 8; ++i) cpu.gpr[i] = task.gpr[i];
  for (unsigned reg = 0; reg < 6; ++reg) cpu.segments[reg] = null_segment(task.selectors[reg]);
  cpu.segments[Cs].attributes |= 1u << 14;  // until it is loaded
  cpu.segments[Ss].attributes |= (task.selectors[Cs] & 3u) << 5;
  uint64_t flags = task.eflags;
  if (!wide) flags &= 0xffff;
  if (nested) flags |= rflags::nt;
  set_flags(cpu, flags);
  update_mode(cpu);
  cpu.dr[7] &= ~uint64_t{0x155};  // local breakpoint enables
  trap = task.trap;
  return load_ldt(cpu, task.ldt, ext) && load_segments(cpu, task, ext);
}

bool task_gate_target(Cpu& cpu, const Descriptor& gate, uint32_t ext, uint16_t& selector, Descriptor& tss) {
  selector = gate.gate_selector();
  const uint32_t error = selector_error(selector) | ext;
  if (selector & 4) return raise(cpu, Gp, error);
  if (!read_descriptor(cpu, selector, tss, Gp, ext)) return false;
  if (tss.code_or_data() || (tss.type() != Tss16 && tss.type() != Tss32)) return raise(cpu, Gp, error);
  return tss.present() || raise(cpu, Np, error);
}

bool task_transfer(Step& step, bool call, uint16_t selector, Descriptor& descriptor) {
  Cpu& cpu = step.cpu;
  if (descriptor.dpl() < cpu.cpl || descriptor.dpl() < (selector & 3u)) return raise(cpu, Gp, selector_error(selector));
  Descriptor tss = descriptor;
  if (descriptor.type() == TaskGate) {
    if (!descriptor.present()) return raise(cpu, Np, selector_error(selector));
    if (!task_gate_target(cpu, descriptor, 0, selector, tss)) return false;
  } else if (selector & 4) {
    return raise(cpu, Gp, selector_error(selector));
  }
  bool trap = false;
  if (!switch_task(cpu, selector, tss, call ? TaskReason::Call : TaskReason::Jump, step.next, 0, trap)) return false;
  step.next = cpu.rip;
  if (trap) step.breakpoints |= 1u << 15;
  return true;
}

bool task_return(Step& step) {
  Cpu& cpu = step.cpu;
  uint16_t selector;
  if (!mmu::read(cpu, cpu.tr.base & 0xffff'ffff, selector, As::System)) return false;
  Descriptor tss;
  if (selector & 4) return raise(cpu, Ts, selector_error(selector));
  if (!read_descriptor(cpu, selector, tss, Ts)) return false;
  if (tss.code_or_data() || (tss.type() != Tss16Busy && tss.type() != Tss32Busy))
    return raise(cpu, Ts, selector_error(selector));
  bool trap = false;
  if (!switch_task(cpu, selector, tss, TaskReason::Return, step.next, 0, trap)) return false;
  step.next = cpu.rip;
  if (trap) step.breakpoints |= 1u << 15;
  return true;
}

}  // namespace caisson::jit
