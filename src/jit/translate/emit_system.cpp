// System instructions that are frequent enough to be translated: the interrupt flag, PUSHF, RDTSC, bit tests with a
// register offset, string moves and stores.
#include <Zydis/Zydis.h>

#include "jit/translate/block_builder.h"

namespace caisson::jit {

void BlockBuilder::leave_if_not(Emitter& out, const Item& item, unsigned condition) {
  Cold cold{.what = Cold::What::Interpret};
  cold.from = out.jump_if_later(condition ^ 1);
  cold.target = block_.key.rip + item.offset;
  cold.flags_in_memory = flags_ == Flags::InMemory;
  cold_.push_back(cold);
}

void BlockBuilder::emit_interrupt_flag(Emitter& out, const Item& item) {
  free_flags(out, item);
  constexpr auto flag = static_cast<uint32_t>(x86::rflags::interrupt);
  if (item.kind == Kind::SetInterrupts) {
    // With something waiting the interpreter does it, and the run loop looks once the shadow is over. What comes later
    // asks for an exit, which is looked at where blocks end; a block never ends here, so the shadow holds.
    if (&item == &items_.back()) {
      gave_up_ = true;
      return;
    }
    out.byte_op(0x80, 7, CPU_FIELD(interrupts_waiting), 0);  // cmp byte [interrupts_waiting], 0
    leave_if_not(out, item, 4);
    out.memory_op(0x81, 1, CPU_FIELD(rflags), false);  // or dword [rflags], IF
    out.u32(flag);
  } else {
    out.memory_op(0x81, 4, CPU_FIELD(rflags), false);  // and dword [rflags], ~IF
    out.u32(~flag);
  }
}

void BlockBuilder::emit_push_flags(Emitter& out, const Item& item) {
  if (flags_ == Flags::InEflags) save_flags(out);
  // RFLAGS without RF and VM (vol. 2B, PUSHF), the status flags from where LAHF and SETO left them.
  out.move(t1, rax);
  out.load32(rax, CPU_FIELD(flags_ax));
  out.u8(0x44), out.u8(0x0f), out.u8(0xb6), out.u8(0xc0 | (t0 & 7) << 3);  // movzx t0d, al
  out.register_op(0xc1, 4, t0, false), out.u8(11);                         // shl t0d, 11
  out.u8(0x0f), out.u8(0xb6), out.u8(0xc4);                                // movzx eax, ah
  out.u8(0x25), out.u32(0xd5);                                             // and eax, D5h
  out.register_op(0x09, rax, t0, false);                                   // or t0d, eax
  out.load32(rax, CPU_FIELD(rflags));
  out.u8(0x25), out.u32(static_cast<uint32_t>(~(x86::rflags::status | x86::rflags::rf | x86::rflags::vm)));
  out.register_op(0x09, rax, t0, false);
  out.move(rax, t1);
  out.store(cpu_at(offsetof(Cpu, scratch) + 16), t0);
  const bool wide = !(block_.key.mode & mode_bits::code_32);
  const int size = wide ? 8 : 4;
  const Address to = emit_stack_check(out, item, guest_rsp, -size, static_cast<unsigned>(size), true);
  out.lea(t1, to);
  out.load(t0, cpu_at(offsetof(Cpu, scratch) + 16));
  out.memory_op(0x89, t0, {.base = t1}, wide);
  out.lea(guest_rsp, {.base = guest_rsp, .disp = -size}, wide);
}

void BlockBuilder::emit_read_time(Emitter& out, const Item& item) {
  free_flags(out, item);
  out.u8(0x0f), out.u8(0x31);                       // rdtsc
  out.register_op(0xc1, 4, rdx, true), out.u8(32);  // shl rdx, 32
  out.register_op(0x09, rdx, rax, true);            // or rax, rdx
  out.add(rax, CPU_FIELD(tsc_bias));
  out.add(rax, CPU_FIELD(tsc_offset));
  out.move(rdx, rax);
  out.register_op(0xc1, 5, rdx, true), out.u8(32);  // shr rdx, 32
  out.register_op(0x89, rax, rax, false);           // mov eax, eax
  if (item.in.mnemonic == ZYDIS_MNEMONIC_RDTSCP) {
    out.load32(rcx, cpu_at(offsetof(Cpu, msrs) + 8 * static_cast<size_t>(x86::MsrSlot::TscAux)));
  }
}

// The bit may lie far from the operand's address (vol. 2A, BT): its word is found first, then the bit in it is native.
void BlockBuilder::emit_bit_test(Emitter& out, const Item& item) {
  const Instruction& in = item.in;
  const bool wide = in.operand_bits == 64;
  const unsigned size = wide ? 8 : 4;
  const unsigned reg_number = in.operands[1].reg;
  free_flags(out, item);
  linear_to_t0(out, item, *in.memory());
  const int reg = load_guest(out, reg_number, t1);
  if (!wide) {
    out.register_op(0x63, t1, reg, true);  // movsxd
  } else if (reg != t1) {
    out.move(t1, reg);
  }
  out.register_op(0xc1, 7, t1, true), out.u8(wide ? 6 : 5);  // sar
  out.lea(t0, {.base = t0, .index = t1, .scale = static_cast<int>(size)});
  const bool write = in.mnemonic != ZYDIS_MNEMONIC_BT;
  const Address word = check_computed(out, item, size, write);
  if (in.lock) leave_if_split(out, item, word, size);
  const unsigned opcode = in.mnemonic == ZYDIS_MNEMONIC_BT    ? 0xa3
                          : in.mnemonic == ZYDIS_MNEMONIC_BTS ? 0xab
                          : in.mnemonic == ZYDIS_MNEMONIC_BTR ? 0xb3
                                                              : 0xbb;
  // The register's value within the word, so that the processor looks no further.
  load_guest(out, reg_number, t1);
  if (reg != t1) out.register_op(0x89, reg, t1, wide);
  out.and32(t1, size * 8 - 1);
  if (in.lock) out.u8(0xf0);
  const unsigned rex = out.rex_bits(wide, t1, word);
  out.u8(0x40 | rex);
  out.u8(0x0f);
  out.u8(opcode);
  out.address(t1, word);
  if ((item.live_out & ~item.use.overwrites) == 0) {
    flags_after(item);
    return;
  }
  // ZF stays as it was: it is in memory, and CF joins it there.
  out.u8(0x41), out.u8(0x0f), out.u8(0x92), out.u8(0xc0 | (t1 & 7));      // setc t1b
  out.u8(0x45), out.u8(0x0f), out.u8(0xb6), out.u8(0xc0 | (t1 & 7) * 9);  // movzx t1d, t1b
  out.register_op(0xc1, 4, t1, false), out.u8(8);                         // shl t1d, 8
  out.move(t0, rax);
  out.load32(rax, CPU_FIELD(flags_ax));
  out.u8(0x25), out.u32(~uint32_t{0x100});  // and eax, ~100h
  out.register_op(0x09, t1, rax, false);    // or eax, t1d
  out.store32(CPU_FIELD(flags_ax), rax);
  out.move(rax, t0);
}

void BlockBuilder::emit_string(Emitter& out, const Item& item) {
  free_flags(out, item);
  const Instruction& in = item.in;
  uint32_t word = in.operand_bits / 8u;
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB: word = 1 | string_word::move; break;
    case ZYDIS_MNEMONIC_MOVSW: word = 2 | string_word::move; break;
    case ZYDIS_MNEMONIC_MOVSD: word = 4 | string_word::move; break;
    case ZYDIS_MNEMONIC_MOVSQ: word = 8 | string_word::move; break;
    case ZYDIS_MNEMONIC_STOSB: word = 1; break;
    case ZYDIS_MNEMONIC_STOSW: word = 2; break;
    case ZYDIS_MNEMONIC_STOSD: word = 4; break;
    default: word = 8; break;
  }
  if (!in.rep && !in.repne) {  // REPNE counts as REP here
    emit_string_element(out, item, word & string_word::size_mask, word & string_word::move);
    return;
  }
  if (block_.key.mode & mode_bits::code_32) word |= string_word::narrow;
  out.move_immediate(t1, word);
  out.call(stubs_.string);
  out.register_op(0x85, t1, t1, false);  // test t1d, t1d
  leave_if_not(out, item, 5);
}

// One element, upwards: boot loaders copy whole kernels by loops around MOVSB.
void BlockBuilder::emit_string_element(Emitter& out, const Item& item, unsigned size, bool move) {
  const bool wide = !(block_.key.mode & mode_bits::code_32);
  constexpr Address value = cpu_at(offsetof(Cpu, scratch) + 16);
  const auto access = [&](unsigned guest, bool write) {
    out.move(t0, load_guest(out, guest, t0));
    return check_computed(out, item, size, write);
  };
  const auto element = [&](unsigned opcode, int reg, const Address& at) {
    if (size == 2) out.u8(0x66);
    out.memory_op(size == 1 ? opcode - 1 : opcode, reg, at, size == 8);
  };
  const auto step = [&](unsigned guest) {
    const int reg = load_guest(out, guest, t0);
    out.lea(reg, {.base = reg, .disp = static_cast<int32_t>(size)}, wide);
    if (apart(guest)) store_guest(out, guest, reg);
  };
  out.memory_op(0xf7, 0, CPU_FIELD(rflags), false);  // test dword [rflags], DF
  out.u32(static_cast<uint32_t>(x86::rflags::df));
  leave_if_not(out, item, 4);
  int source = rax;
  if (move) {
    element(0x8b, t1, access(x86::Rsi, false));
    out.store(value, t1);
    source = t1;
  }
  const Address to = access(x86::Rdi, true);
  if (move) out.load(t1, value);
  element(0x89, source, to);
  if (move) step(x86::Rsi);
  step(x86::Rdi);
}

void BlockBuilder::emit_swap_gs(Emitter& out) {
  constexpr Address base = segment_base(x86::Gs);
  constexpr Address other = cpu_at(offsetof(Cpu, msrs) + 8 * static_cast<size_t>(x86::MsrSlot::KernelGsBase));
  out.load(t0, base);
  out.load(t1, other);
  out.store(base, t1);
  out.store(other, t0);
}

void BlockBuilder::emit_clear_direction(Emitter& out, const Item& item) {
  free_flags(out, item);
  out.memory_op(0x81, 4, CPU_FIELD(rflags), false);  // and dword [rflags], ~DF
  out.u32(~static_cast<uint32_t>(x86::rflags::df));
}

// The mode word says that CR4.SMAP is set: AC alone decides how a supervisor's data accesses look pages up.
void BlockBuilder::emit_access_check_flag(Emitter& out, const Item& item) {
  free_flags(out, item);
  constexpr auto flag = static_cast<uint32_t>(x86::rflags::ac);
  const bool set = item.in.mnemonic == ZYDIS_MNEMONIC_STAC;
  out.memory_op(0x81, set ? 1 : 4, CPU_FIELD(rflags), false);  // or/and dword [rflags], AC
  out.u32(set ? flag : ~flag);
  // mov byte [tlb_mode], …
  out.byte_op(0xc6, 0, CPU_FIELD(tlb_mode), static_cast<unsigned>(set ? TlbMode::SupervisorUser : TlbMode::Supervisor));
}

void BlockBuilder::emit_system(Emitter& out, const Item& item) {
  const Instruction& in = item.in;
  uint32_t word = uint32_t{in.length} << system_word::length_shift;
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL: word |= system_word::syscall; break;
    case ZYDIS_MNEMONIC_SYSRET: word |= system_word::sysret; break;
    case ZYDIS_MNEMONIC_RDFSBASE: word |= system_word::read_base; break;
    case ZYDIS_MNEMONIC_RDGSBASE: word |= system_word::read_base | system_word::gs; break;
    case ZYDIS_MNEMONIC_WRFSBASE: word |= system_word::write_base; break;
    default: word |= system_word::write_base | system_word::gs; break;
  }
  if (in.operand_count > 0) word |= uint32_t{in.operands[0].reg} << system_word::register_shift;
  if (in.operand_bits == 64) word |= system_word::wide;
  depart(out, {.kind = Departure::Kind::System, .flags_in_memory = flags_ == Flags::InMemory, .word = word},
         block_.key.rip + item.offset, 0);
}

}  // namespace caisson::jit
