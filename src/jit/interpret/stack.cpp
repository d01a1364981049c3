// PUSH, POP, PUSHA, POPA, ENTER, LEAVE, PUSHF, POPF.
//   Source   Intel SDM vol. 2; vol. 3, 21.2.7 and 21.3.3 (VM86 with IOPL and VME)
#include "jit/interpret/stack.h"

#include "jit/interpret/privilege.h"
#include "jit/interpret/segments.h"

namespace caisson::jit {
namespace {

namespace rf = x86::rflags;

template <class T>
bool push(Step& step) {
  if constexpr (sizeof(T) == 1) {
    return raise(step.cpu, x86::Ud);
  } else {
    const Operand& source = step.in.operands[0];
    T value;
    if (source.reg_class == RegisterClass::Segment) {
      value = step.cpu.segments[source.reg].selector;
    } else if (!get<T>(step, source, value)) {
      return false;
    }
    Stack stack(step);
    if (!stack.push<T>(value)) return false;
    stack.commit();
    return true;
  }
}

template <class T>
bool pop(Step& step) {
  if constexpr (sizeof(T) == 1) {
    return raise(step.cpu, x86::Ud);
  } else {
    Cpu& cpu = step.cpu;
    const Operand& destination = step.in.operands[0];
    Stack stack(step);
    T value;
    if (!stack.pop<T>(value)) return false;
    if (destination.reg_class == RegisterClass::Segment) {
      if (!load_segment(cpu, destination.reg, static_cast<uint16_t>(value))) return false;
      stack.commit();
      if (destination.reg == x86::Ss) cpu.interrupt_shadow = 2;
      return true;
    }
    // rSP is already incremented when it is the base of the destination, and is overwritten when it is the destination.
    const uint64_t old = cpu.gpr[x86::Rsp];
    stack.commit();
    if (put<T>(step, destination, value)) return true;
    cpu.gpr[x86::Rsp] = old;
    return false;
  }
}

template <class T>
bool pusha(Step& step) {
  Stack stack(step);
  const T old_sp = static_cast<T>(step.cpu.gpr[x86::Rsp]);
  for (unsigned reg = 0; reg < 8; ++reg) {
    if (!stack.push<T>(reg == x86::Rsp ? old_sp : static_cast<T>(step.cpu.gpr[reg]))) return false;
  }
  stack.commit();
  return true;
}

template <class T>
bool popa(Step& step) {
  Stack stack(step);
  std::array<T, 8> values;
  for (unsigned reg = 8; reg-- > 0;) {
    if (!stack.pop<T>(values[reg])) return false;
  }
  for (unsigned reg = 0; reg < 8; ++reg) {
    if (reg != x86::Rsp) set_gpr<T>(step.cpu, reg, values[reg]);
  }
  stack.commit();
  return true;
}

template <class T>
bool enter(Step& step) {
  if constexpr (sizeof(T) == 1) {
    return raise(step.cpu, x86::Ud);
  } else {
    Cpu& cpu = step.cpu;
    const uint64_t size = step.in.operands[0].immediate & 0xffff;
    const unsigned level = static_cast<unsigned>(step.in.operands[1].immediate & 31);
    const unsigned bits = stack_bits(cpu);
    Stack stack(step);
    if (!stack.push<T>(static_cast<T>(cpu.gpr[x86::Rbp]))) return false;
    const uint64_t frame = stack.pointer();
    uint64_t display = truncate(cpu.gpr[x86::Rbp], bits);
    for (unsigned i = 1; i < level; ++i) {
      display = truncate(display - sizeof(T), bits);
      uint64_t linear;
      T value;
      if (!linear_address(step, x86::Ss, display, sizeof(T), false, linear) || !mmu::read(cpu, linear, value))
        return false;
      if (!stack.push<T>(value)) return false;
    }
    if (level > 0 && !stack.push<T>(static_cast<T>(frame))) return false;
    stack.set_pointer(stack.pointer() - size);
    // The manual has the new top of stack checked for a write (vol. 2, ENTER).
    uint64_t linear;
    if (!linear_address(step, x86::Ss, stack.pointer(), sizeof(T), true, linear)) return false;
    if (!mmu::probe(cpu, linear, sizeof(T), Access::Write)) return false;
    stack.commit();
    set_gpr<T>(cpu, x86::Rbp, static_cast<T>(frame));
    return true;
  }
}

template <class T>
bool leave(Step& step) {
  if constexpr (sizeof(T) == 1) {
    return raise(step.cpu, x86::Ud);
  } else {
    Stack stack(step);
    stack.set_pointer(step.cpu.gpr[x86::Rbp]);
    T value;
    if (!stack.pop<T>(value)) return false;
    stack.commit();
    set_gpr<T>(step.cpu, x86::Rbp, value);
    return true;
  }
}

template <class T>
bool pushf(Step& step) {
  Cpu& cpu = step.cpu;
  uint64_t flags = cpu.rflags & ~(rf::vm | rf::rf);
  if ((cpu.rflags & rf::vm) && iopl(cpu) < 3) {
    if (sizeof(T) != 2 || (cpu.cr4 & x86::cr4::vme) == 0) return raise(cpu, x86::Gp, 0);
    flags = (flags & ~rf::interrupt) | rf::iopl | (cpu.rflags & rf::vif ? rf::interrupt : 0);
  }
  Stack stack(step);
  if (!stack.push<T>(static_cast<T>(flags))) return false;
  stack.commit();
  return true;
}

template <class T>
bool popf(Step& step) {
  Cpu& cpu = step.cpu;
  Stack stack(step);
  T popped;
  uint64_t writable = rf::status | rf::tf | rf::df | rf::nt | rf::ac | rf::id | rf::rf;
  const bool vm86 = cpu.rflags & rf::vm;
  bool virtual_interrupt = false;
  if (vm86 && iopl(cpu) < 3) {
    if (sizeof(T) != 2 || (cpu.cr4 & x86::cr4::vme) == 0) return raise(cpu, x86::Gp, 0);
    virtual_interrupt = true;
  } else {
    if (cpu.cpl <= iopl(cpu)) writable |= rf::interrupt;
    if (cpu.cpl == 0) writable |= rf::iopl;
  }
  if (!stack.pop<T>(popped)) return false;
  uint64_t flags = popped;
  if (virtual_interrupt) {
    if ((flags & rf::tf) || ((flags & rf::interrupt) && (cpu.rflags & rf::vip))) return raise(cpu, x86::Gp, 0);
    cpu.rflags = flags & rf::interrupt ? cpu.rflags | rf::vif : cpu.rflags & ~rf::vif;
  }
  if (sizeof(T) == 2) writable &= 0xffff;
  flags &= ~rf::rf;  // POPF clears RF
  stack.commit();
  set_flags(cpu, (cpu.rflags & ~writable) | (flags & writable));
  return true;
}

}  // namespace

void add_stack(HandlerTable& table) {
  table.sized(ZYDIS_MNEMONIC_PUSH, []<class T>() -> Handler { return push<T>; });
  table.sized(ZYDIS_MNEMONIC_POP, []<class T>() -> Handler { return pop<T>; });
  table.set(ZYDIS_MNEMONIC_PUSHA, pusha<uint16_t>);
  table.set(ZYDIS_MNEMONIC_PUSHAD, pusha<uint32_t>);
  table.set(ZYDIS_MNEMONIC_POPA, popa<uint16_t>);
  table.set(ZYDIS_MNEMONIC_POPAD, popa<uint32_t>);
  table.sized(ZYDIS_MNEMONIC_ENTER, []<class T>() -> Handler { return enter<T>; });
  table.sized(ZYDIS_MNEMONIC_LEAVE, []<class T>() -> Handler { return leave<T>; });
  table.set(ZYDIS_MNEMONIC_PUSHF, pushf<uint16_t>);
  table.set(ZYDIS_MNEMONIC_PUSHFD, pushf<uint32_t>);
  table.set(ZYDIS_MNEMONIC_PUSHFQ, pushf<uint64_t>);
  table.set(ZYDIS_MNEMONIC_POPF, popf<uint16_t>);
  table.set(ZYDIS_MNEMONIC_POPFD, popf<uint32_t>);
  table.set(ZYDIS_MNEMONIC_POPFQ, popf<uint64_t>);
}

}  // namespace caisson::jit
