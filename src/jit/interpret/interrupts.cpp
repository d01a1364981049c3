// INT n, INT3, INT1, INTO, BOUND and IRET.
//   Source   Intel SDM vol. 2; vol. 3, 6.12-6.14, 21.2 (VM86), 21.3 (VME)
#include "jit/interpret/frame_stack.h"
#include "jit/interpret/interrupt_delivery.h"
#include "jit/interpret/privilege.h"
#include "jit/interpret/task_switch.h"

namespace caisson::jit {
namespace {

using namespace x86;
namespace rf = x86::rflags;

bool software_event(Step& step, const Event& event) {
  Cpu& cpu = step.cpu;
  const uint64_t rip = cpu.rip;
  cpu.rip = step.next;
  step.inhibit_trap = true;
  if (!deliver_event(cpu, event)) {
    cpu.rip = rip;
    return false;
  }
  step.next = cpu.rip;
  return true;
}

// CR4.VME and a clear bit in the TSS's redirection map: the VM86 program's own handler takes INT n (vol. 3, 21.3.3).
bool redirected(Cpu& cpu, uint8_t vector, bool& yes) {
  yes = false;
  if (!(cpu.cr4 & cr4::vme) || !(cpu.tr.type() & 8) || cpu.tr.limit < 0x67) return true;
  uint16_t io_map;
  if (!mmu::read(cpu, (cpu.tr.base + 0x66) & 0xffff'ffff, io_map, As::System)) return false;
  const uint32_t at = io_map - 32u + vector / 8u;
  if (io_map < 32 || at > cpu.tr.limit) return true;
  uint8_t bits;
  if (!mmu::read(cpu, (cpu.tr.base + at) & 0xffff'ffff, bits, As::System)) return false;
  yes = !(bits >> (vector & 7) & 1);
  return true;
}

bool virtual_interrupt(Step& step, uint8_t vector) {
  Cpu& cpu = step.cpu;
  uint32_t target;
  if (!mmu::read(cpu, vector * 4u, target)) return false;
  uint64_t flags = cpu.rflags;
  const bool own_if = iopl(cpu) == 3;
  if (!own_if) flags = (flags & ~rf::interrupt) | rf::iopl | (flags & rf::vif ? rf::interrupt : 0);
  Stack stack(step);
  if (!stack.push<uint16_t>(static_cast<uint16_t>(flags)) || !stack.push<uint16_t>(cpu.segments[Cs].selector) ||
      !stack.push<uint16_t>(static_cast<uint16_t>(step.next))) {
    return false;
  }
  stack.commit();
  cpu.segments[Cs] = real_segment(cpu, Cs, static_cast<uint16_t>(target >> 16));
  set_flags(cpu, cpu.rflags & ~(rf::tf | (own_if ? rf::interrupt : rf::vif)));
  update_mode(cpu);
  step.next = target & 0xffff;
  step.inhibit_trap = true;
  return true;
}

bool int_n(Step& step) {
  Cpu& cpu = step.cpu;
  const uint8_t vector = static_cast<uint8_t>(step.in.operands[0].immediate);
  if ((cpu.cr0 & cr0::pe) && virtual_8086(cpu)) {
    bool yes;
    if (!redirected(cpu, vector, yes)) return false;
    if (yes) return virtual_interrupt(step, vector);
    if (iopl(cpu) < 3) return raise(cpu, Gp, 0);
  }
  return software_event(step, {.vector = vector, .software = true});
}

bool int3(Step& step) { return software_event(step, {.vector = Bp, .software = true}); }

// The undocumented-once INT1 is a privileged software exception: no DPL check (vol. 2, INT n).
bool int1(Step& step) { return software_event(step, {.vector = Db}); }

bool into(Step& step) { return !(step.cpu.rflags & rf::of) || software_event(step, {.vector = Of, .software = true}); }

template <class T>
bool bound(Step& step) {
  if constexpr (sizeof(T) != 2 && sizeof(T) != 4) {
    return raise(step.cpu, Ud);
  } else {
    using Signed = std::make_signed_t<T>;
    uint64_t linear;
    std::array<T, 2> limits;
    if (!operand_address(step, step.in.operands[1], sizeof limits, false, linear)) return false;
    if (!mmu::read_bytes(step.cpu, linear, limits.data(), sizeof limits)) return false;
    const Signed index = static_cast<Signed>(get_register<T>(step.cpu, step.in.operands[0]));
    return (index >= static_cast<Signed>(limits[0]) && index <= static_cast<Signed>(limits[1])) || raise(step.cpu, Br);
  }
}

// --- IRET ------------------------------------------------------------------------------------------------------------

uint64_t returned_flags(const Cpu& cpu, uint64_t popped, unsigned bits) {
  uint64_t writable = rf::status | rf::tf | rf::df | rf::nt;
  if (bits != 16) writable |= rf::rf | rf::ac | rf::id;
  if (cpu.cpl <= iopl(cpu)) writable |= rf::interrupt;
  if (cpu.cpl == 0) {
    writable |= rf::iopl;
    if (bits != 16) writable |= rf::vif | rf::vip;
  }
  return (cpu.rflags & ~writable) | (popped & writable);
}

bool iret_real(Step& step, unsigned bits) {
  Cpu& cpu = step.cpu;
  Stack stack(step);
  uint64_t ip, selector, popped;
  if (!stack.pop(ip, bits) || !stack.pop(selector, bits) || !stack.pop(popped, bits)) return false;
  if (ip > 0xffff) return raise(cpu, Gp, 0);
  uint64_t writable = rf::status | rf::tf | rf::interrupt | rf::df | rf::iopl | rf::nt;
  if (bits == 32) writable |= rf::rf | rf::ac | rf::id;
  stack.commit();
  cpu.segments[Cs] = real_segment(cpu, Cs, static_cast<uint16_t>(selector));
  set_flags(cpu, (cpu.rflags & ~writable) | (popped & writable));
  update_mode(cpu);
  step.next = ip;
  return true;
}

bool iret_virtual(Step& step, unsigned bits) {
  Cpu& cpu = step.cpu;
  const bool own_if = iopl(cpu) == 3;
  if (!own_if && (bits != 16 || !(cpu.cr4 & cr4::vme))) return raise(cpu, Gp, 0);
  Stack stack(step);
  uint64_t ip, selector, popped;
  if (!stack.pop(ip, bits) || !stack.pop(selector, bits) || !stack.pop(popped, bits)) return false;
  if (ip > 0xffff) return raise(cpu, Gp, 0);
  uint64_t writable = rf::status | rf::tf | rf::df | rf::nt;
  if (bits == 32) writable |= rf::rf | rf::ac | rf::id;
  uint64_t flags = cpu.rflags;
  if (own_if) {
    writable |= rf::interrupt;
  } else {
    if ((popped & rf::tf) || ((popped & rf::interrupt) && (flags & rf::vip))) return raise(cpu, Gp, 0);
    flags = popped & rf::interrupt ? flags | rf::vif : flags & ~rf::vif;
  }
  stack.commit();
  cpu.segments[Cs] = real_segment(cpu, Cs, static_cast<uint16_t>(selector));
  set_flags(cpu, (flags & ~writable) | (popped & writable));
  update_mode(cpu);
  step.next = ip;
  return true;
}

bool iret_to_virtual(Step& step, Stack& stack, uint64_t ip, uint16_t selector, uint64_t popped) {
  Cpu& cpu = step.cpu;
  uint64_t pointer, raw;
  std::array<uint16_t, 6> selectors{};
  selectors[Cs] = selector;
  if (!stack.pop(pointer, 32)) return false;
  for (const unsigned reg : {Ss, Es, Ds, Fs, Gs}) {
    if (!stack.pop(raw, 32)) return false;
    selectors[reg] = static_cast<uint16_t>(raw);
  }
  if (ip > 0xffff) return raise(cpu, Gp, 0);
  cpu.rflags = (popped & (rf::status | rf::tf | rf::interrupt | rf::df | rf::iopl | rf::nt | rf::rf | rf::vm | rf::ac |
                          rf::vif | rf::vip | rf::id)) |
               rf::fixed;
  for (unsigned reg = 0; reg < 6; ++reg) cpu.segments[reg] = real_segment(cpu, reg, selectors[reg]);
  update_mode(cpu);
  cpu.gpr[Rsp] = pointer & 0xffff'ffff;
  step.next = ip;
  return true;
}

bool iret_protected(Step& step, unsigned bits) {
  Cpu& cpu = step.cpu;
  if (cpu.rflags & rf::nt) {
    if (cpu.long_mode) return raise(cpu, Gp, 0);
    return task_return(step);
  }
  Stack stack(step);
  uint64_t ip, raw_selector, popped;
  if (!stack.pop(ip, bits) || !stack.pop(raw_selector, bits) || !stack.pop(popped, bits)) return false;
  const uint16_t selector = static_cast<uint16_t>(raw_selector);
  if (bits == 32 && (popped & rf::vm) && cpu.cpl == 0 && !cpu.long_mode) {
    return iret_to_virtual(step, stack, ip, selector, popped);
  }
  const unsigned rpl = selector & 3;
  if (null_selector(selector)) return raise(cpu, Gp, 0);
  Descriptor code;
  if (!read_descriptor(cpu, selector, code)) return false;
  const uint32_t error = selector_error(selector);
  if (!code.code() || rpl < cpu.cpl) return raise(cpu, Gp, error);
  if (code.conforming() ? code.dpl() > rpl : code.dpl() != rpl) return raise(cpu, Gp, error);
  const bool long_code = cpu.long_mode && code.long_code();
  if (long_code && code.big()) return raise(cpu, Gp, error);
  if (!code.present()) return raise(cpu, Np, error);

  const bool outer = rpl != cpu.cpl;
  Segment stack_segment = cpu.segments[Ss];
  uint64_t pointer = 0;
  if (outer || cpu.code_bits == 64) {
    uint64_t raw_stack;
    if (!stack.pop(pointer, bits) || !stack.pop(raw_stack, bits)) return false;
    const uint16_t stack_selector = static_cast<uint16_t>(raw_stack);
    if (null_selector(stack_selector) && long_code && rpl != 3) {
      if ((stack_selector & 3u) != rpl) return raise(cpu, Gp, 0);
      stack_segment = null_segment(stack_selector, rpl);
    } else {
      Descriptor descriptor;
      if (!check_stack_segment(cpu, stack_selector, rpl, Gp, 0, descriptor) || !set_accessed(cpu, descriptor))
        return false;
      stack_segment = descriptor.segment(stack_selector);
    }
  } else {
    pointer = stack.pointer();
  }
  if (!(long_code ? canonical(ip) : ip <= code.limit())) return raise(cpu, Gp, 0);
  if (!set_accessed(cpu, code)) return false;
  const uint64_t flags = returned_flags(cpu, popped, bits);
  cpu.segments[Cs] = code.segment(selector);
  cpu.segments[Ss] = stack_segment;
  set_flags(cpu, flags);
  update_mode(cpu);
  set_stack_pointer(cpu, pointer);
  if (outer) drop_inner_segments(cpu);
  step.next = ip;
  return true;
}

template <unsigned Bits>
bool iret(Step& step) {
  Cpu& cpu = step.cpu;
  cpu.nmi_blocked = false;
  if (!(cpu.cr0 & cr0::pe)) return iret_real(step, Bits);
  if (virtual_8086(cpu)) return iret_virtual(step, Bits);
  return iret_protected(step, Bits);
}

}  // namespace

void add_interrupts(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_INT, int_n);
  table.set(ZYDIS_MNEMONIC_INT3, int3);
  table.set(ZYDIS_MNEMONIC_INT1, int1);
  table.set(ZYDIS_MNEMONIC_INTO, into);
  table.sized(ZYDIS_MNEMONIC_BOUND, []<class T>() -> Handler { return bound<T>; });
  table.set(ZYDIS_MNEMONIC_IRET, iret<16>);
  table.set(ZYDIS_MNEMONIC_IRETD, iret<32>);
  table.set(ZYDIS_MNEMONIC_IRETQ, iret<64>);
}

}  // namespace caisson::jit
