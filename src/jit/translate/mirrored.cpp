// Accesses in mirrored address spaces (mmu/mirror.h): what is needed is the addend of the region that the address lies
// in. One region of each half is tried first, so that the access need not wait for the check: the processor predicts
// its outcome. Where EFLAGS hold flags that matter the addend is looked up.
//   An access may fault on the host as it would on the guest: when it does, the guest's registers are as they were
//   before the instruction.
#include <Zydis/Zydis.h>

#include "jit/mmu/mirror.h"
#include "jit/translate/block_builder.h"

namespace caisson::jit {
namespace {

constexpr int64_t small_step = 1 << 20;  // that the stack moves by, in bytes

}  // namespace

bool BlockBuilder::mirror_addend(Emitter& out, const Item& item, int reg, unsigned guess) {
  static_assert(Mirror::regions == 256);
  constexpr auto addends = static_cast<int32_t>(offsetof(Cpu, mirror_addends));
  // A look-up follows, for which the flags go to memory anyway.
  if (item.kind == Kind::Return || item.kind == Kind::JumpIndirect || item.kind == Kind::CallIndirect)
    free_flags(out, item);
  if (item.live_in != 0 && flags_ == Flags::InEflags) {
    out.rotate_right(t1, reg, Mirror::region_shift);
    out.zero_extend_byte(t1);
    out.load(t1, {.index = t1, .scale = 8, .disp = addends, .cpu = true});
    return false;
  }
  out.move(t1, reg);
  out.register_op(0xc1, 5, t1, true), out.u8(Mirror::region_shift);  // shr
  out.memory_op(0x3b, t1, cpu_at(offsetof(Cpu, mirror_region) + 4 * size_t{guess}), false);
  Cold cold{.what = Cold::What::Mirror};
  cold.from = out.jump_if_later(5);
  cold.target = block_.key.rip + item.offset;
  cold.flags_in_memory = flags_ == Flags::InMemory;
  out.load(t1, cpu_at(offsetof(Cpu, mirror_addend) + 8 * size_t{guess}));
  cold.back = out.size();
  cold_.push_back(cold);
  return true;
}

// Not in the region where it was thought to be; T1 = bits 40 and up of the address. Where it is in none the interpreter
// finds out what comes of it.
void BlockBuilder::emit_other_region(Emitter& out, const Cold& cold) {
  out.zero_extend_byte(t1);
  // cmp byte [t1 + mirror_valid], 0
  out.byte_op(0x80, 7, {.base = t1, .disp = static_cast<int32_t>(offsetof(Cpu, mirror_valid)), .cpu = true}, 0);
  const size_t nowhere = out.jump_short_if_later(4);
  out.load(t1, {.index = t1, .scale = 8, .disp = static_cast<int32_t>(offsetof(Cpu, mirror_addends)), .cpu = true});
  out.jump_to_offset(cold.back);
  out.land8(nowhere);
  depart(out, {.kind = Departure::Kind::Interpret, .flags_in_memory = cold.flags_in_memory}, cold.target, 0);
}

Address BlockBuilder::collapse_if(Emitter& out, const Item& item, const Address& address, bool collapse) {
  if (!collapse && !restores_flags(item)) return address;
  out.lea(t0, address);
  return {.base = t0};
}

Address BlockBuilder::mirror_address(Emitter& out, const Item& item, const Operand& memory, bool collapse) {
  const bool based = memory.segment >= x86::Fs;
  const bool no_base = memory.base == Operand::no_register, no_index = memory.index == Operand::no_register;
  const auto disp = static_cast<int32_t>(memory.displacement);
  if (by_stack_pointer(memory)) {
    stack_proven_ |= !item.in.simd && disp >= -small_step && disp <= small_step;  // (with a mask it may access nothing)
    return {.base = guest_rsp, .disp = disp};
  }
  if (!based && memory.base < 16 && no_index) {
    const int base = load_guest(out, memory.base, t0);
    (void)mirror_addend(out, item, base, guess_half(memory.base));
    return collapse_if(out, item, {.base = base, .index = t1, .disp = disp}, collapse);
  }
  if (!based && no_base && no_index) {
    out.move_immediate(t0, static_cast<uint64_t>(memory.displacement));
    (void)mirror_addend(out, item, t0, Mirror::in_upper_half(static_cast<uint64_t>(memory.displacement)) ? 1 : 0);
  } else if (!based && memory.base != Operand::rip_register) {
    const int base = no_base ? int{none} : load_guest(out, memory.base, t0);
    const int index = no_index ? int{none} : load_guest(out, memory.index, t1);
    out.lea(t0, {.base = base, .index = index, .scale = memory.scale ? memory.scale : 1});
    (void)mirror_addend(out, item, t0, no_base ? 0 : guess_half(memory.base));
    return collapse_if(out, item, {.base = t0, .index = t1, .disp = disp}, collapse);
  } else {
    linear_to_t0(out, item, memory);
    (void)mirror_addend(out, item, t0, based ? 1 : own_half_);
  }
  return collapse_if(out, item, {.base = t0, .index = t1}, collapse);
}

Address BlockBuilder::mirror_window(Emitter& out, const Item& item, Window& window, int32_t disp, bool collapse) {
  const Address kept = cpu_at(offsetof(Cpu, windows) + 8 * size_t{window.slot});
  Address at = window_address(out, window, 0);
  if (window.index != Operand::no_register) {
    out.lea(t0, at);
    at = {.base = t0};
  }
  if (window.open) {
    out.load(t1, kept);
  } else if (mirror_addend(out, item, at.base, guess_half(window.base))) {
    // (An access that went nowhere may go unnoticed, as a prefetch does: without the comparison it says nothing about
    // the next.)
    out.store(kept, t1);
    window.open = true;
  }
  return collapse_if(out, item, {.base = at.base, .index = t1, .disp = disp}, collapse);
}

// --- the stack -------------------------------------------------------------------------------------------------------
// Mirrored code has in the register of RSP not the guest's value but the address that it has on the host, so that what
// goes through RSP needs nothing besides. It lies in its region or at most `guard` beside it, always: who enters looks
// (mode_word()), who sets it looks in mirror_stack_addends, and constants are added in small steps, each block of which
// has accessed the stack or does so here. What lies beside a region faults.

// (Status flags of the host's address are those of the guest's but where it goes below zero.)
bool BlockBuilder::moves_stack_a_little(const Item& item) const {
  unsigned reg = 0;
  int64_t by = 0;
  return mirrored() && moves_by_constant(item.in, reg, by) && reg == x86::Rsp && by >= -small_step &&
         by <= small_step && (item.use.overwrites & item.live_out) == 0;
}

void BlockBuilder::prove_stack(Emitter& out, const Item&) {
  if (stack_proven_) return;
  out.memory_op(0x8a, t1, {.base = guest_rsp}, false);
  stack_proven_ = true;
}

// What may be done once more by the interpreter: it changes nothing but RSP and, whatever they were before, flags.
bool BlockBuilder::may_set_stack_pointer(const Instruction& in) const {
  const bool to_memory = in.operands[0].kind == Operand::Kind::Memory;
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB: return !to_memory;
    default: return false;
  }
}

// The guest's RSP, in a scratch register; uses both. Faults on the host where it leads to another region.
void BlockBuilder::set_stack_pointer(Emitter& out, int from) {
  const int other = from == t0 ? t1 : t0;
  out.rotate_right(other, from, Mirror::region_shift);
  out.zero_extend_byte(other);
  out.load(other,
           {.index = other, .scale = 8, .disp = static_cast<int32_t>(offsetof(Cpu, mirror_stack_addends)), .cpu = true});
  out.lea(from, {.base = from, .index = other});
  out.memory_op(0x8a, other, {.base = from}, false);
  out.move(guest_rsp, from);
  stack_proven_ = true;
}

void BlockBuilder::emit_mirrored_leave(Emitter& out) {
  out.rotate_right(t1, rbp, Mirror::region_shift);
  out.zero_extend_byte(t1);
  out.load(t1,
           {.index = t1, .scale = 8, .disp = static_cast<int32_t>(offsetof(Cpu, mirror_stack_addends)), .cpu = true});
  out.load(t0, {.base = rbp, .index = t1});
  out.lea(guest_rsp, {.base = rbp, .index = t1, .disp = 8});
  out.move(rbp, t0);
  stack_proven_ = true;
}

}  // namespace caisson::jit
