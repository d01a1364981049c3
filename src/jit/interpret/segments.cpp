// Segment registers: loads with their checks, far-pointer loads, and the instructions that look at descriptors (LAR,
// LSL, VERR, VERW, ARPL).
//   Source   Intel SDM vol. 2; vol. 3, 5.5-5.10
#include "jit/interpret/segments.h"

#include "jit/interpret/operands.h"
#include "jit/interpret/privilege.h"

namespace caisson::jit {

using namespace x86;

// The cached type of a segment loaded in real or VM86 mode.
Segment real_segment(const Cpu& cpu, unsigned reg, uint16_t selector) {
  Segment segment = cpu.segments[reg];
  segment.selector = selector;
  segment.base = uint64_t{selector} << 4;
  if (virtual_8086(cpu)) {
    segment.limit = 0xffff;
    segment.attributes = 0xf3;
  } else {
    // Limit and size stay those of the last load in protected mode ("unreal mode").
    if (segment.unusable()) segment.limit = 0xffff;
    segment.attributes = (segment.attributes & 0xd000) | 0x93;
  }
  return segment;
}

bool legacy_linear(Cpu& cpu, unsigned index, uint64_t offset, uint64_t size, bool write, uint64_t& linear) {
  const Segment& segment = cpu.segments[index];
  const uint8_t vector = index == Ss ? StackFault : Gp;
  const unsigned type = segment.type();
  const uint64_t last = offset + size - 1;
  if (protected_mode(cpu)) {
    if (segment.unusable()) return raise(cpu, vector, 0);
    const bool code = type & 8;
    if (write ? code || (type & 2) == 0 : code && (type & 2) == 0) return raise(cpu, vector, 0);
  }
  if ((type & 12) == 4) {  // expand-down data
    if (offset <= segment.limit || last > (segment.big() ? 0xffff'ffff : 0xffff)) return raise(cpu, vector, 0);
  } else if (last > segment.limit && segment.limit != 0xffff'ffff) {  // a 4 GiB segment wraps around
    return raise(cpu, vector, 0);
  }
  linear = (segment.base + offset) & 0xffff'ffff;
  return true;
}

bool read_descriptor(Cpu& cpu, uint16_t selector, Descriptor& out, uint8_t vector, uint32_t ext) {
  uint64_t base = cpu.gdtr.base;
  uint32_t limit = cpu.gdtr.limit;
  if (selector & 4) {
    base = cpu.ldtr.base;
    limit = cpu.ldtr.limit;
    if (cpu.ldtr.unusable()) return raise(cpu, vector, selector_error(selector) | ext);
  }
  const uint32_t offset = selector & 0xfff8u;
  if (offset + 7 > limit) return raise(cpu, vector, selector_error(selector) | ext);
  out.address = base + offset;
  if (!cpu.long_mode) out.address &= 0xffff'ffff;
  out.high = 0;
  return mmu::read(cpu, out.address, out.low, As::System);
}

bool read_system_descriptor(Cpu& cpu, uint16_t selector, Descriptor& out, uint8_t vector, uint32_t ext) {
  if (!read_descriptor(cpu, selector, out, vector, ext)) return false;
  if (!cpu.long_mode || out.code_or_data()) return true;
  const uint32_t limit = selector & 4 ? cpu.ldtr.limit : cpu.gdtr.limit;
  if ((selector & 0xfff8u) + 15 > limit) return raise(cpu, vector, selector_error(selector) | ext);
  return mmu::read(cpu, out.address + 8, out.high, As::System);
}

namespace {

bool write_type(Cpu& cpu, Descriptor& descriptor, uint64_t low) {
  descriptor.low = low;
  return mmu::write(cpu, descriptor.address + 5, static_cast<uint8_t>(low >> 40), As::System);
}

}  // namespace

bool set_accessed(Cpu& cpu, Descriptor& descriptor) {
  constexpr uint64_t accessed = uint64_t{1} << 40;
  return (descriptor.low & accessed) || write_type(cpu, descriptor, descriptor.low | accessed);
}

bool set_busy(Cpu& cpu, Descriptor& descriptor, bool busy) {
  constexpr uint64_t bit = uint64_t{2} << 40;
  return write_type(cpu, descriptor, busy ? descriptor.low | bit : descriptor.low & ~bit);
}

bool check_stack_segment(Cpu& cpu, uint16_t selector, unsigned cpl, uint8_t vector, uint32_t ext, Descriptor& out) {
  if (null_selector(selector)) return raise(cpu, vector, ext);
  if (!read_descriptor(cpu, selector, out, vector, ext)) return false;
  const uint32_t error = selector_error(selector) | ext;
  if ((selector & 3) != cpl || !out.writable_data() || out.dpl() != cpl) return raise(cpu, vector, error);
  if (!out.present()) return raise(cpu, StackFault, error);
  return true;
}

bool load_segment(Cpu& cpu, unsigned reg, uint16_t selector) {
  if (!protected_mode(cpu)) {
    cpu.segments[reg] = real_segment(cpu, reg, selector);
    if (reg == Ss) update_mode(cpu);
    return true;
  }
  Descriptor descriptor;
  if (reg == Ss) {
    if (null_selector(selector) && cpu.code_bits == 64 && cpu.cpl < 3 && (selector & 3) == cpu.cpl) {
      cpu.segments[Ss] = null_segment(selector, cpu.cpl);
      update_mode(cpu);
      return true;
    }
    if (!check_stack_segment(cpu, selector, cpu.cpl, Gp, 0, descriptor) || !set_accessed(cpu, descriptor)) return false;
    cpu.segments[Ss] = descriptor.segment(selector);
    update_mode(cpu);
    return true;
  }
  if (null_selector(selector)) {
    cpu.segments[reg] = null_segment(selector);
    return true;
  }
  if (!read_descriptor(cpu, selector, descriptor)) return false;
  const unsigned rpl = selector & 3;
  if (!descriptor.readable()) return raise(cpu, Gp, selector_error(selector));
  if (!(descriptor.code() && descriptor.conforming()) && (rpl > descriptor.dpl() || cpu.cpl > descriptor.dpl())) {
    return raise(cpu, Gp, selector_error(selector));
  }
  if (!descriptor.present()) return raise(cpu, Np, selector_error(selector));
  if (!set_accessed(cpu, descriptor)) return false;
  cpu.segments[reg] = descriptor.segment(selector);
  return true;
}

void drop_inner_segments(Cpu& cpu) {
  for (const unsigned reg : {Es, Ds, Fs, Gs}) {
    Segment& segment = cpu.segments[reg];
    if (segment.unusable()) {
      segment.selector = 0;  // null selectors lose their RPL; FS and GS keep their bases
      continue;
    }
    const bool conforming_code = segment.code_or_data() && (segment.type() & 12) == 12;
    if (!conforming_code && segment.dpl() < cpu.cpl) segment = null_segment(0);
  }
}

bool mov_to_segment(Step& step) {
  uint16_t selector;
  if (!get(step, step.in.operands[1], selector)) return false;
  const unsigned reg = step.in.operands[0].reg;
  if (!load_segment(step.cpu, reg, selector)) return false;
  if (reg == Ss) step.cpu.interrupt_shadow = 2;
  return true;
}

bool mov_from_segment(Step& step) {
  const uint16_t selector = step.cpu.segments[step.in.operands[1].reg].selector;
  const Operand& destination = step.in.operands[0];
  if (destination.kind == Operand::Kind::Memory || step.in.operand_bits == 16) return put(step, destination, selector);
  set_gpr<uint64_t>(step.cpu, destination.reg, selector);
  return true;
}

namespace {

template <unsigned Reg>
bool load_far_pointer(Step& step) {
  Cpu& cpu = step.cpu;
  const Operand& memory = step.in.operands[1];
  const unsigned bytes = step.in.operand_bits / 8;
  uint64_t linear;
  if (!operand_address(step, memory, bytes + 2, false, linear)) return false;
  std::array<uint8_t, 10> pointer{};
  if (!mmu::read_bytes(cpu, linear, pointer.data(), bytes + 2)) return false;
  uint64_t offset = 0;
  uint16_t selector;
  std::memcpy(&offset, pointer.data(), bytes);
  std::memcpy(&selector, pointer.data() + bytes, 2);
  if (!load_segment(cpu, Reg, selector)) return false;
  if (Reg == Ss) cpu.interrupt_shadow = 2;
  const unsigned reg = step.in.operands[0].reg;
  if (bytes == 2) {
    set_gpr<uint16_t>(cpu, reg, static_cast<uint16_t>(offset));
  } else {
    cpu.gpr[reg] = offset;
  }
  return true;
}

void set_zf(Cpu& cpu, bool zf) { cpu.rflags = zf ? cpu.rflags | rflags::zf : cpu.rflags & ~rflags::zf; }

// Finds the descriptor for LAR, LSL, VERR, VERW. `usable` false: ZF is to be cleared. Returns false with a fault raised
// only where reading the table faults.
bool look_up(Cpu& cpu, uint16_t selector, Descriptor& descriptor, bool& usable) {
  usable = false;
  if (null_selector(selector)) return true;
  if (!read_system_descriptor(cpu, selector, descriptor)) {
    if (cpu.fault.vector != Gp) return false;
    cpu.fault = {};
    return true;
  }
  usable = true;
  return true;
}

bool visible(const Cpu& cpu, uint16_t selector, const Descriptor& descriptor) {
  if (descriptor.code() && descriptor.conforming()) return true;
  return descriptor.dpl() >= cpu.cpl && descriptor.dpl() >= (selector & 3u);
}

enum class Query { AccessRights, Limit };

template <Query What>
bool describe(Step& step) {
  Cpu& cpu = step.cpu;
  if (!protected_mode(cpu)) return raise(cpu, Ud);
  uint16_t selector;
  if (!get(step, step.in.operands[1], selector)) return false;
  Descriptor descriptor;
  bool usable;
  if (!look_up(cpu, selector, descriptor, usable)) return false;
  if (usable && !descriptor.code_or_data()) {
    // vol. 2, tables of LAR and LSL: system types that have access rights, or a limit.
    constexpr uint32_t legacy_rights = 0x1a3e, legacy_limit = 0x0a0e, long_rights = 0x1a04, long_limit = 0x0a04;
    const uint32_t valid = What == Query::AccessRights ? (cpu.long_mode ? long_rights : legacy_rights)
                                                       : (cpu.long_mode ? long_limit : legacy_limit);
    usable = valid >> descriptor.type() & 1;
  }
  usable = usable && visible(cpu, selector, descriptor);
  set_zf(cpu, usable);
  if (!usable) return true;
  const uint32_t result =
      What == Query::AccessRights ? static_cast<uint32_t>(descriptor.low >> 32) & 0x00f0'ff00 : descriptor.limit();
  const unsigned reg = step.in.operands[0].reg;
  if (step.in.operand_bits == 16) {
    set_gpr<uint16_t>(cpu, reg, static_cast<uint16_t>(result));
  } else {
    set_gpr<uint32_t>(cpu, reg, result);
  }
  return true;
}

template <bool Write>
bool verify(Step& step) {
  Cpu& cpu = step.cpu;
  if (!protected_mode(cpu)) return raise(cpu, Ud);
  uint16_t selector;
  if (!get(step, step.in.operands[0], selector)) return false;
  Descriptor descriptor;
  bool usable;
  if (!look_up(cpu, selector, descriptor, usable)) return false;
  usable = usable && (Write ? descriptor.writable_data() : descriptor.readable()) && visible(cpu, selector, descriptor);
  set_zf(cpu, usable);
  return true;
}

bool arpl(Step& step) {
  Cpu& cpu = step.cpu;
  if (!protected_mode(cpu)) return raise(cpu, Ud);
  const uint16_t rpl = get_register<uint16_t>(cpu, step.in.operands[1]) & 3;
  const Operand& destination = step.in.operands[0];
  return update<uint16_t>(step, destination, [rpl](uint16_t value, uint64_t& flags) {
    if ((value & 3) >= rpl) {
      flags &= ~rflags::zf;
      return value;
    }
    flags |= rflags::zf;
    return static_cast<uint16_t>((value & ~3) | rpl);
  });
}

}  // namespace

void add_segments(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_LES, load_far_pointer<Es>);
  table.set(ZYDIS_MNEMONIC_LDS, load_far_pointer<Ds>);
  table.set(ZYDIS_MNEMONIC_LSS, load_far_pointer<Ss>);
  table.set(ZYDIS_MNEMONIC_LFS, load_far_pointer<Fs>);
  table.set(ZYDIS_MNEMONIC_LGS, load_far_pointer<Gs>);
  table.set(ZYDIS_MNEMONIC_LAR, describe<Query::AccessRights>);
  table.set(ZYDIS_MNEMONIC_LSL, describe<Query::Limit>);
  table.set(ZYDIS_MNEMONIC_VERR, verify<false>);
  table.set(ZYDIS_MNEMONIC_VERW, verify<true>);
  table.set(ZYDIS_MNEMONIC_ARPL, arpl);
}

}  // namespace caisson::jit
