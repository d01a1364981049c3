// Far JMP, CALL and RET: direct, through call gates and task gates, in all modes.
//   Source   Intel SDM vol. 2 (pseudo-code of JMP, CALL, RET); vol. 3, 5.8
#include "jit/interpret/far_transfer.h"

#include "jit/interpret/frame_stack.h"
#include "jit/interpret/privilege.h"
#include "jit/interpret/task_switch.h"

namespace caisson::jit {
namespace {

using namespace x86;

bool far_target(Step& step, uint16_t& selector, uint64_t& offset) {
  const Operand& operand = step.in.operands[0];
  if (operand.kind == Operand::Kind::FarPointer) {
    selector = operand.far_selector;
    offset = truncate(operand.immediate, step.in.operand_bits);
    return true;
  }
  const unsigned bytes = step.in.operand_bits / 8;
  uint64_t linear;
  std::array<uint8_t, 10> pointer{};
  if (!operand_address(step, operand, bytes + 2, false, linear)) return false;
  if (!mmu::read_bytes(step.cpu, linear, pointer.data(), bytes + 2)) return false;
  offset = 0;
  std::memcpy(&offset, pointer.data(), bytes);
  std::memcpy(&selector, pointer.data() + bytes, 2);
  return true;
}

// The offset must be fetchable in the new segment.
bool check_offset(Cpu& cpu, const Descriptor& code, uint64_t offset) {
  const bool long_code = cpu.long_mode && code.long_code();
  return (long_code ? canonical(offset) : offset <= code.limit()) || raise(cpu, Gp, 0);
}

void set_code_segment(Cpu& cpu, const Descriptor& code, uint16_t selector, unsigned cpl) {
  cpu.segments[Cs] = code.segment(static_cast<uint16_t>((selector & ~3u) | cpl));
}

bool present_code(Cpu& cpu, const Descriptor& code, uint16_t selector) {
  if (cpu.long_mode && code.long_code() && code.big()) return raise(cpu, Gp, selector_error(selector));
  return code.present() || raise(cpu, Np, selector_error(selector));
}

// JMP or CALL straight to a code segment: the privilege level stays.
bool to_code_segment(Step& step, bool call, uint16_t selector, uint64_t offset, Descriptor& code) {
  Cpu& cpu = step.cpu;
  const bool allowed = code.conforming() ? code.dpl() <= cpu.cpl : (selector & 3u) <= cpu.cpl && code.dpl() == cpu.cpl;
  if (!allowed) return raise(cpu, Gp, selector_error(selector));
  if (!present_code(cpu, code, selector)) return false;
  if (!(cpu.long_mode && code.long_code())) offset &= 0xffff'ffff;
  if (!check_offset(cpu, code, offset) || !set_accessed(cpu, code)) return false;
  if (call) {
    Stack stack(step);
    if (!stack.push(cpu.segments[Cs].selector, step.in.operand_bits) || !stack.push(step.next, step.in.operand_bits)) {
      return false;
    }
    stack.commit();
  }
  set_code_segment(cpu, code, selector, cpu.cpl);
  update_mode(cpu);
  step.next = offset;
  return true;
}

// Copies a call gate's parameters from the caller's stack and leaves its CS:EIP (vol. 3, 5.8.5).
bool push_outer_frame(Step& step, FrameStack& inner, unsigned bits, unsigned parameters) {
  Cpu& cpu = step.cpu;
  if (!inner.push(cpu.segments[Ss].selector, bits) || !inner.push(cpu.gpr[Rsp], bits)) return false;
  Stack outer(step);
  std::array<uint64_t, 31> copied;
  for (unsigned i = 0; i < parameters; ++i) {
    if (!outer.pop(copied[i], bits)) return false;
  }
  for (unsigned i = parameters; i-- > 0;) {
    if (!inner.push(copied[i], bits)) return false;
  }
  return inner.push(cpu.segments[Cs].selector, bits) && inner.push(step.next, bits);
}

bool through_call_gate(Step& step, bool call, uint16_t gate_selector, const Descriptor& gate) {
  Cpu& cpu = step.cpu;
  if (gate.dpl() < cpu.cpl || gate.dpl() < (gate_selector & 3u)) return raise(cpu, Gp, selector_error(gate_selector));
  if (!gate.present()) return raise(cpu, Np, selector_error(gate_selector));
  const uint16_t selector = gate.gate_selector();
  if (null_selector(selector)) return raise(cpu, Gp, 0);
  Descriptor code;
  if (!read_descriptor(cpu, selector, code)) return false;
  if (!code.code() || code.dpl() > cpu.cpl) return raise(cpu, Gp, selector_error(selector));
  if (cpu.long_mode && (!code.long_code() || code.big())) return raise(cpu, Gp, selector_error(selector));
  if (!code.present()) return raise(cpu, Np, selector_error(selector));
  const bool inner = !code.conforming() && code.dpl() < cpu.cpl;
  if (!call && inner) return raise(cpu, Gp, selector_error(selector));
  const unsigned bits = cpu.long_mode ? 64 : gate.type() == CallGate32 ? 32 : 16;
  const uint64_t offset = bits == 64   ? gate.gate_offset()
                          : bits == 32 ? gate.gate_offset() & 0xffff'ffff
                                       : gate.gate_offset() & 0xffff;
  if (!check_offset(cpu, code, offset)) return false;

  if (!inner) {
    if (!set_accessed(cpu, code)) return false;
    if (call) {
      FrameStack stack(cpu, cpu.segments[Ss], cpu.gpr[Rsp], cpu.long_mode, As::Current, 0);
      if (!stack.push(cpu.segments[Cs].selector, bits) || !stack.push(step.next, bits)) return false;
      set_code_segment(cpu, code, selector, cpu.cpl);
      update_mode(cpu);
      set_stack_pointer(cpu, stack.pointer());
    } else {
      set_code_segment(cpu, code, selector, cpu.cpl);
      update_mode(cpu);
    }
    step.next = offset;
    return true;
  }

  const unsigned level = code.dpl();
  uint64_t pointer;
  Segment stack_segment;
  uint16_t stack_selector = static_cast<uint16_t>(level);
  uint32_t stack_error = 0;
  if (cpu.long_mode) {
    if (!rsp_from_tss(cpu, 4 + 8 * level, 0, pointer)) return false;
    stack_segment = null_segment(stack_selector, level);
  } else {
    if (!stack_from_tss(cpu, level, 0, stack_selector, pointer)) return false;
    Descriptor stack;
    if (!check_stack_segment(cpu, stack_selector, level, Ts, 0, stack) || !set_accessed(cpu, stack)) return false;
    stack_segment = stack.segment(stack_selector);
    stack_error = selector_error(stack_selector);
  }
  if (!set_accessed(cpu, code)) return false;
  FrameStack stack(cpu, stack_segment, pointer, cpu.long_mode, As::System, stack_error);
  if (!push_outer_frame(step, stack, bits, cpu.long_mode ? 0 : gate.gate_parameters())) return false;
  cpu.segments[Ss] = stack_segment;
  set_code_segment(cpu, code, selector, level);
  update_mode(cpu);
  set_stack_pointer(cpu, stack.pointer());
  step.next = offset;
  return true;
}

bool jump_or_call(Step& step, bool call) {
  Cpu& cpu = step.cpu;
  uint16_t selector;
  uint64_t offset;
  if (!far_target(step, selector, offset)) return false;

  if (!protected_mode(cpu)) {
    if (offset > cpu.segments[Cs].limit) return raise(cpu, Gp, 0);
    if (call) {
      Stack stack(step);
      if (!stack.push(cpu.segments[Cs].selector, step.in.operand_bits) ||
          !stack.push(step.next, step.in.operand_bits)) {
        return false;
      }
      stack.commit();
    }
    cpu.segments[Cs] = real_segment(cpu, Cs, selector);
    update_mode(cpu);
    step.next = offset;
    return true;
  }

  if (null_selector(selector)) return raise(cpu, Gp, 0);
  Descriptor descriptor;
  if (!read_system_descriptor(cpu, selector, descriptor)) return false;
  if (descriptor.code()) return to_code_segment(step, call, selector, offset, descriptor);
  if (descriptor.code_or_data()) return raise(cpu, Gp, selector_error(selector));
  switch (descriptor.type()) {
    case CallGate16:
      if (cpu.long_mode) break;
      [[fallthrough]];
    case CallGate32: return through_call_gate(step, call, selector, descriptor);
    case Tss16:
    case Tss32:
    case TaskGate:
      return !cpu.long_mode ? task_transfer(step, call, selector, descriptor)
                            : raise(cpu, Gp, selector_error(selector));
    default: break;
  }
  return raise(cpu, Gp, selector_error(selector));
}

}  // namespace

bool far_jump(Step& step) { return jump_or_call(step, false); }
bool far_call(Step& step) { return jump_or_call(step, true); }

bool far_return(Step& step) {
  Cpu& cpu = step.cpu;
  const unsigned bits = step.in.operand_bits;
  const uint64_t extra = step.in.operand_count > 0 ? step.in.operands[0].immediate & 0xffff : 0;
  Stack stack(step);
  uint64_t offset, raw_selector;
  if (!stack.pop(offset, bits) || !stack.pop(raw_selector, bits)) return false;
  const uint16_t selector = static_cast<uint16_t>(raw_selector);

  if (!protected_mode(cpu)) {
    if (offset > cpu.segments[Cs].limit) return raise(cpu, Gp, 0);
    stack.skip(extra);
    stack.commit();
    cpu.segments[Cs] = real_segment(cpu, Cs, selector);
    update_mode(cpu);
    step.next = offset;
    return true;
  }

  const unsigned rpl = selector & 3;
  if (null_selector(selector)) return raise(cpu, Gp, 0);
  Descriptor code;
  if (!read_descriptor(cpu, selector, code)) return false;
  if (!code.code() || rpl < cpu.cpl) return raise(cpu, Gp, selector_error(selector));
  if (code.conforming() ? code.dpl() > rpl : code.dpl() != rpl) return raise(cpu, Gp, selector_error(selector));
  if (!present_code(cpu, code, selector)) return false;
  stack.skip(extra);

  if (rpl == cpu.cpl) {
    if (!check_offset(cpu, code, offset) || !set_accessed(cpu, code)) return false;
    stack.commit();
    set_code_segment(cpu, code, selector, rpl);
    update_mode(cpu);
    step.next = offset;
    return true;
  }

  uint64_t pointer, raw_stack;
  if (!stack.pop(pointer, bits) || !stack.pop(raw_stack, bits)) return false;
  const uint16_t stack_selector = static_cast<uint16_t>(raw_stack);
  Segment stack_segment;
  if (null_selector(stack_selector) && cpu.long_mode && code.long_code() && rpl != 3) {
    if ((stack_selector & 3u) != rpl) return raise(cpu, Gp, 0);
    stack_segment = null_segment(stack_selector, rpl);
  } else {
    Descriptor descriptor;
    if (!check_stack_segment(cpu, stack_selector, rpl, Gp, 0, descriptor)) return false;
    if (!set_accessed(cpu, descriptor)) return false;
    stack_segment = descriptor.segment(stack_selector);
  }
  if (!check_offset(cpu, code, offset) || !set_accessed(cpu, code)) return false;
  set_code_segment(cpu, code, selector, rpl);
  cpu.segments[Ss] = stack_segment;
  update_mode(cpu);
  set_stack_pointer(cpu, pointer + extra);
  drop_inner_segments(cpu);
  step.next = offset;
  return true;
}

}  // namespace caisson::jit
