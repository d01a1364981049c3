// Interrupts and exceptions: real mode, protected mode with 16- and 32-bit and task gates, VM86, and IA-32e mode.
//   Source   Intel SDM vol. 2, INT n (pseudo-code); vol. 3, 6.10-6.14, 6.15 (double fault), 21.3 (VM86)
#include "jit/interpret/interrupt_delivery.h"

#include "jit/direct/direct.h"
#include "jit/interpret/frame_stack.h"
#include "jit/interpret/privilege.h"
#include "jit/interpret/task_switch.h"
#include "jit/mmu/mirror.h"
#include "jit/profile.h"

namespace caisson::jit {
namespace {

using namespace x86;
namespace rf = x86::rflags;

uint64_t pushed_flags(const Cpu& cpu, const Event& event) {
  return event.resume ? cpu.rflags | rf::rf : cpu.rflags & ~rf::rf;
}

bool deliver_real(Cpu& cpu, const Event& event) {
  const unsigned offset = event.vector * 4u;
  if (offset + 3 > cpu.idtr.limit) return raise(cpu, Gp, offset * 2 + 2 + !event.software);
  uint32_t target;
  if (!mmu::read(cpu, (cpu.idtr.base + offset) & 0xffff'ffff, target, As::System)) return false;
  FrameStack stack(cpu, cpu.segments[Ss], cpu.gpr[Rsp] & 0xffff, false, As::Current, 0);
  if (!stack.push(cpu.rflags & ~rf::rf, 16) || !stack.push(cpu.segments[Cs].selector, 16) || !stack.push(cpu.rip, 16)) {
    return false;
  }
  set_stack_pointer(cpu, stack.pointer());
  cpu.segments[Cs] = real_segment(cpu, Cs, static_cast<uint16_t>(target >> 16));
  cpu.rip = target & 0xffff;
  set_flags(cpu, cpu.rflags & ~(rf::interrupt | rf::tf | rf::ac | rf::rf));
  update_mode(cpu);
  return true;
}

struct Target {
  Descriptor code;
  uint16_t selector = 0;
  uint64_t offset = 0;
  unsigned level = 0;  // CPL of the handler
};

// The code segment that a gate leads to, with its checks.
bool find_target(Cpu& cpu, const Descriptor& gate, uint32_t ext, Target& target) {
  target.selector = gate.gate_selector();
  if (null_selector(target.selector)) return raise(cpu, Gp, ext);
  Descriptor& code = target.code;
  if (!read_descriptor(cpu, target.selector, code, Gp, ext)) return false;
  const uint32_t error = selector_error(target.selector) | ext;
  if (!code.code() || code.dpl() > cpu.cpl) return raise(cpu, Gp, error);
  if (cpu.long_mode && (!code.long_code() || code.big())) return raise(cpu, Gp, error);
  if (!code.present()) return raise(cpu, Np, error);
  target.level = code.conforming() ? cpu.cpl : code.dpl();
  return true;
}

void enter(Cpu& cpu, const Target& target, bool interrupt_gate) {
  cpu.segments[Cs] = target.code.segment(static_cast<uint16_t>((target.selector & ~3u) | target.level));
  cpu.rip = target.offset;
  uint64_t flags = cpu.rflags & ~(rf::tf | rf::vm | rf::rf | rf::nt);
  if (interrupt_gate) flags &= ~rf::interrupt;
  set_flags(cpu, flags);
  update_mode(cpu);
}

bool deliver_long(Cpu& cpu, const Event& event) {
  const uint32_t ext = !event.software;
  const uint32_t gate_error = event.vector * 8u + 2 + ext;
  const unsigned at = event.vector * 16u;
  if (at + 15u > cpu.idtr.limit) return raise(cpu, Gp, gate_error);
  Descriptor gate;
  if (!mmu::read(cpu, cpu.idtr.base + at, gate.low, As::System) ||
      !mmu::read(cpu, cpu.idtr.base + at + 8, gate.high, As::System)) {
    return false;
  }
  if (gate.code_or_data() || (gate.type() != InterruptGate32 && gate.type() != TrapGate32))
    return raise(cpu, Gp, gate_error);
  if (event.software && gate.dpl() < cpu.cpl) return raise(cpu, Gp, gate_error);
  if (!gate.present()) return raise(cpu, Np, gate_error);
  Target target;
  if (!find_target(cpu, gate, ext, target)) return false;
  target.offset = gate.gate_offset();
  if (!canonical(target.offset)) return raise(cpu, Gp, ext);

  uint64_t pointer = cpu.gpr[Rsp];
  if (cpu.code_bits != 64) pointer = truncate(pointer, cpu.stack_32 ? 32 : 16);
  if (gate.gate_ist() != 0) {
    if (!rsp_from_tss(cpu, 28 + 8 * gate.gate_ist(), ext, pointer)) return false;
  } else if (target.level != cpu.cpl) {
    if (!rsp_from_tss(cpu, 4 + 8 * target.level, ext, pointer)) return false;
  }
  FrameStack stack(cpu, cpu.segments[Ss], pointer & ~uint64_t{15}, true, stack_access(target.level, cpu), ext);
  if (!stack.push(cpu.segments[Ss].selector, 64) || !stack.push(cpu.gpr[Rsp], 64) ||
      !stack.push(pushed_flags(cpu, event), 64) || !stack.push(cpu.segments[Cs].selector, 64) ||
      !stack.push(cpu.rip, 64) || (event.has_error && !stack.push(event.error, 64)) ||
      !set_accessed(cpu, target.code)) {
    return false;
  }
  if (target.level != cpu.cpl) cpu.segments[Ss] = null_segment(static_cast<uint16_t>(target.level), target.level);
  enter(cpu, target, gate.type() == InterruptGate32);
  cpu.gpr[Rsp] = stack.pointer();
  return true;
}

bool deliver_task(Cpu& cpu, const Event& event, const Descriptor& gate) {
  const uint32_t ext = !event.software;
  uint16_t selector;
  Descriptor tss;
  if (!task_gate_target(cpu, gate, ext, selector, tss)) return false;
  bool trap = false;
  if (event.resume) cpu.rflags |= rf::rf;
  if (!switch_task(cpu, selector, tss, TaskReason::Event, cpu.rip, ext, trap)) return false;
  if (!event.has_error) return true;
  FrameStack stack(cpu, cpu.segments[Ss], cpu.gpr[Rsp], false, As::Current, ext);
  if (!stack.push(event.error, cpu.tr.type() & 8 ? 32 : 16)) return false;
  set_stack_pointer(cpu, stack.pointer());
  return true;
}

bool deliver_protected(Cpu& cpu, const Event& event) {
  const uint32_t ext = !event.software;
  const uint32_t gate_error = event.vector * 8u + 2 + ext;
  if (event.vector * 8u + 7 > cpu.idtr.limit) return raise(cpu, Gp, gate_error);
  Descriptor gate;
  if (!mmu::read(cpu, (cpu.idtr.base + event.vector * 8u) & 0xffff'ffff, gate.low, As::System)) return false;
  const unsigned type = gate.type();
  const bool known = type == TaskGate || type == InterruptGate16 || type == TrapGate16 || type == InterruptGate32 ||
                     type == TrapGate32;
  if (gate.code_or_data() || !known) return raise(cpu, Gp, gate_error);
  if (event.software && gate.dpl() < cpu.cpl) return raise(cpu, Gp, gate_error);
  if (!gate.present()) return raise(cpu, Np, gate_error);
  if (type == TaskGate) return deliver_task(cpu, event, gate);

  Target target;
  if (!find_target(cpu, gate, ext, target)) return false;
  const unsigned bits = type & 8 ? 32 : 16;
  target.offset = truncate(gate.gate_offset(), bits);
  const bool vm86 = virtual_8086(cpu);
  if (vm86 && target.level != 0) return raise(cpu, Gp, selector_error(target.selector) | ext);
  if (target.offset > target.code.limit()) return raise(cpu, Gp, ext);

  Segment stack_segment = cpu.segments[Ss];
  uint64_t pointer = cpu.gpr[Rsp];
  uint32_t stack_error = ext;
  const bool inner = target.level != cpu.cpl;
  if (inner) {
    uint16_t selector;
    Descriptor descriptor;
    if (!stack_from_tss(cpu, target.level, ext, selector, pointer)) return false;
    if (!check_stack_segment(cpu, selector, target.level, Ts, ext, descriptor) || !set_accessed(cpu, descriptor))
      return false;
    stack_segment = descriptor.segment(selector);
    stack_error = selector_error(selector) | ext;
  }
  FrameStack stack(cpu, stack_segment, pointer, false, stack_access(target.level, cpu), stack_error);
  if (vm86) {
    for (const unsigned reg : {Gs, Fs, Ds, Es}) {
      if (!stack.push(cpu.segments[reg].selector, bits)) return false;
    }
  }
  if (inner && (!stack.push(cpu.segments[Ss].selector, bits) || !stack.push(cpu.gpr[Rsp], bits))) return false;
  if (!stack.push(pushed_flags(cpu, event), bits) || !stack.push(cpu.segments[Cs].selector, bits) ||
      !stack.push(cpu.rip, bits) || (event.has_error && !stack.push(event.error, bits)) ||
      !set_accessed(cpu, target.code)) {
    return false;
  }
  if (vm86) {
    for (const unsigned reg : {Gs, Fs, Ds, Es}) cpu.segments[reg] = null_segment(0);
  }
  cpu.segments[Ss] = stack_segment;
  enter(cpu, target, type == InterruptGate16 || type == InterruptGate32);
  set_stack_pointer(cpu, stack.pointer());
  return true;
}

// vol. 3, table 6-5.
bool contributory(uint8_t vector) { return vector == De || (vector >= Ts && vector <= Gp); }

Fault combine(const Fault& first, const Fault& second) {
  const bool fatal = (contributory(first.vector) && contributory(second.vector)) ||
                     (first.vector == Pf && (second.vector == Pf || contributory(second.vector)));
  return fatal ? Fault{.raised = true, .vector = Df, .has_error = true} : second;
}

void note_page_fault(Cpu& cpu, uint64_t address) {
  cpu.cr2 = address;
  // What is cached of the page goes (vol. 3, 4.10.4.1); the other caches see to it where they find the fault.
  if (cpu.mirror != nullptr) cpu.mirror->drop_page(address);
  if (cpu.direct != nullptr) cpu.direct->drop_page(address);
}

StepResult deliver(Cpu& cpu, Event event, Fault fault) {
  for (;;) {
    if (deliver_event(cpu, event)) return StepResult::Done;
    const Fault second = cpu.fault;
    cpu.fault = {};
    // CR2 is the last page fault's, whatever comes of it (vol. 3, 6.15 #PF).
    if (second.vector == Pf) note_page_fault(cpu, second.address);
    if (fault.raised && fault.vector == Df) return StepResult::Shutdown;
    fault = fault.raised ? combine(fault, second) : second;
    event = {.vector = fault.vector, .has_error = fault.has_error, .error = fault.error, .resume = true};
  }
}

}  // namespace

bool deliver_event(Cpu& cpu, const Event& event) {
  if (!(cpu.cr0 & cr0::pe)) return deliver_real(cpu, event);
  return cpu.long_mode ? deliver_long(cpu, event) : deliver_protected(cpu, event);
}

StepResult deliver_fault(Cpu& cpu) {
  if (cpu.trial != nullptr) return StepResult::Done;  // a trial run only has to know that there is one
  const Fault fault = cpu.fault;
  cpu.fault = {};
  if (cpu.profile != nullptr) cpu.profile->vector(fault.vector);
  if (fault.vector == Pf) note_page_fault(cpu, fault.address);
  return deliver(cpu, {.vector = fault.vector, .has_error = fault.has_error, .error = fault.error, .resume = true},
                 fault);
}

StepResult deliver_interrupt(Cpu& cpu, uint8_t vector) {
  if (vector == Nmi) cpu.nmi_blocked = true;
  if (cpu.profile != nullptr) cpu.profile->vector(vector);
  return deliver(cpu, {.vector = vector}, {});
}

StepResult deliver_debug_trap(Cpu& cpu, uint32_t cause) {
  cpu.dr[6] |= cause;
  return deliver(cpu, {.vector = Db}, {.raised = true, .vector = Db});
}

}  // namespace caisson::jit
