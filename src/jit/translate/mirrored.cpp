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

// To where an address is by a table of addends; leaves EFLAGS alone.
void BlockBuilder::load_addend(Emitter& out, int to, int linear, size_t table) {
  out.rotate_right(to, linear, Mirror::region_shift);
  out.zero_extend_byte(to);
  out.load(to, {.index = to, .scale = 8, .disp = static_cast<int32_t>(table), .cpu = true});
}

BlockBuilder::Reach BlockBuilder::mirror_reach(Emitter& out, const Item& item, int reg, unsigned guess,
                                               bool gs_possible) {
  static_assert(Mirror::regions == 256);
  // A look-up follows, for which the flags go to memory anyway.
  if (item.kind == Kind::Return || item.kind == Kind::JumpIndirect || item.kind == Kind::CallIndirect)
    free_flags(out, item);
  if (item.live_in != 0 && flags_ == Flags::InEflags) {
    load_addend(out, t1, reg, offsetof(Cpu, mirror_addends));
    return Reach::Table;
  }
  const Address region = cpu_at(offsetof(Cpu, mirror_region) + 4 * size_t{guess});
  Cold cold{.what = Cold::What::Mirror};
  cold.target = block_.key.rip + item.offset;
  cold.flags_in_memory = flags_ == Flags::InMemory;
  const bool gs = gs_possible && guess == gs_half() && (block_.key.mode & mode_bits::careful) == 0;
  out.rotate_right(t1, reg, Mirror::region_shift);
  out.memory_op(0x3a, t1, region, false);  // cmp t1b, [region]
  cold.from = out.jump_if_later(5);
  if (gs) {
    cold.what = Cold::What::Careful;
  } else {
    out.load(t1, cpu_at(offsetof(Cpu, mirror_addend) + 8 * size_t{guess}));
    cold.back = out.size();
  }
  cold_.push_back(cold);
  return gs ? Reach::Gs : Reach::Region;
}

// Not in the region where it was thought to be; T1's low byte = bits 40 to 47 of the address. A stub looks it up: most
// blocks have several of these ways, which are seldom gone but lie between those that are. Where it is in none the
// interpreter finds out what comes of it.
void BlockBuilder::emit_other_region(Emitter& out, const Cold& cold) {
  out.call(stubs_.other_region);
  out.jump_to_offset(cold.back);
  Departure{.kind = Departure::Kind::Interpret, .flags_in_memory = cold.flags_in_memory, .target = cold.target}
      .emit_bytes(out, 0);
}

Address BlockBuilder::collapse_if(Emitter& out, const Item& item, const Address& address, bool collapse) {
  if (!collapse && !restores_flags(item)) return address;
  if (address.base == t0 && address.index == none) return address;
  Address plain = address;
  plain.gs = false;
  out.lea(t0, plain);
  return {.base = t0, .gs = address.gs};
}

Address BlockBuilder::reached(Reach how, int reg, int32_t disp) {
  return {.base = reg, .index = how == Reach::Gs ? int{none} : t1, .disp = disp, .gs = how == Reach::Gs};
}

Address BlockBuilder::mirror_address(Emitter& out, const Item& item, const Operand& memory, bool collapse) {
  const bool based = memory.segment >= x86::Fs;
  const bool no_base = memory.base == Operand::no_register, no_index = memory.index == Operand::no_register;
  const auto disp = static_cast<int32_t>(memory.displacement);
  if (by_stack_pointer(memory)) {
    stack_proven_ |= !item.in.simd && disp >= -small_step && disp <= small_step;  // (with a mask it may access nothing)
    return {.base = guest_rsp, .disp = disp};
  }
  const auto reach = [&](int reg, unsigned guess, int32_t behind) {
    return collapse_if(out, item, reached(mirror_reach(out, item, reg, guess), reg, behind), collapse);
  };
  if (memory.segment == x86::Fs && no_base && no_index && disp == memory.displacement) {  // the thread's own data
    out.load(t0, CPU_FIELD(mirror_fs));
    return {.base = t0, .disp = disp};
  }
  if (!based && memory.base < 16 && no_index) {
    return reach(load_guest(out, memory.base, t0), guess_half(memory.base), disp);
  }
  if (!based && no_base && no_index) {
    const unsigned region = static_cast<uint64_t>(memory.displacement) >> Mirror::region_shift & 0xff;
    out.load(t1, cpu_at(offsetof(Cpu, mirror_addends) + 8 * size_t{region}));
    if (disp == memory.displacement) return collapse_if(out, item, {.base = t1, .disp = disp}, collapse);
    // MOV between the accumulator and a whole address (opcodes A0 to A3).
    out.move_immediate(t0, static_cast<uint64_t>(memory.displacement));
    return collapse_if(out, item, {.base = t0, .index = t1}, collapse);
  }
  if (!based && memory.base != Operand::rip_register) {
    const int base = no_base ? int{none} : load_guest(out, memory.base, t0);
    const int index = no_index ? int{none} : load_guest(out, memory.index, t1);
    out.lea(t0, {.base = base, .index = index, .scale = memory.scale ? memory.scale : 1});
    return reach(t0, no_base ? 0 : guess_half(memory.base), disp);
  }
  const auto distance = static_cast<int64_t>(rip_after(item) + static_cast<uint64_t>(memory.displacement));
  const bool near = distance == static_cast<int32_t>(distance);
  if (!based && near && own_half_ == gs_half() && (code_proven_ || item.live_in == 0 || flags_ == Flags::InMemory)) {
    out.load(t0, CPU_FIELD(code_base));
    const Reach how = code_proven_ ? Reach::Gs : mirror_reach(out, item, t0, own_half_);
    code_proven_ = how == Reach::Gs;
    return collapse_if(out, item, reached(how, t0, static_cast<int32_t>(distance)), collapse);
  }
  linear_to_t0(out, item, memory);
  return reach(t0, based ? 1 : own_half_, 0);
}

Address BlockBuilder::mirror_window(Emitter& out, const Item& item, Window& window, int32_t disp, bool collapse) {
  const Address kept = cpu_at(offsetof(Cpu, windows) + 8 * size_t{window.slot});
  if (window.open && window.gs) {
    Address at = window_address(out, window, disp);
    at.gs = true;
    return collapse_if(out, item, at, collapse);
  }
  Address at = window_address(out, window, 0);
  if (window.index != Operand::no_register) {
    out.lea(t0, at);
    at = {.base = t0};
  }
  Reach how = Reach::Region;
  if (window.open) {
    out.load(t1, kept);
  } else {
    how = mirror_reach(out, item, at.base, guess_half(window.base));
    // (An access that went nowhere may go unnoticed, as a prefetch does: without the comparison it says nothing about
    // the next.)
    window.open = how != Reach::Table;
    window.gs = how == Reach::Gs;
    if (how == Reach::Region) out.store(kept, t1);
  }
  return collapse_if(out, item, reached(how, at.base, disp), collapse);
}

// --- guesses ---------------------------------------------------------------------------------------------------------

// Where registers point to: where they do now, if that is anywhere.
void BlockBuilder::first_guesses(const Cpu& now) {
  upper_ = 0;
  own_half_ = Mirror::in_upper_half(now.rip) ? 1 : 0;
  for (unsigned i = 0; i < 16; ++i) {
    const uint64_t region = now.gpr[i] >> Mirror::region_shift;
    const bool pointer = now.gpr[i] >= page_size && region < Mirror::regions && now.mirror_valid[region];
    const bool upper = pointer ? Mirror::in_upper_half(now.gpr[i]) : gs_half() == 1;
    upper_ |= static_cast<uint16_t>(uint16_t{upper} << i);
  }
}

// What is loaded points to where what was there before did, as in a loop.
void BlockBuilder::learn(const Item& item) {
  const Operand& to = item.in.operands[0];
  const Operand& from = item.in.operands[1];
  if (item.kind != Kind::Native || to.kind != Operand::Kind::Register || to.reg_class != RegisterClass::Gpr) return;
  unsigned half = 0;
  if (item.in.mnemonic == ZYDIS_MNEMONIC_MOV && from.kind == Operand::Kind::Register &&
      from.reg_class == RegisterClass::Gpr) {
    half = guess_half(from.reg);
  } else if (item.in.mnemonic == ZYDIS_MNEMONIC_LEA && from.base != Operand::no_register) {
    half = guess_half(from.base);
  } else {
    return;
  }
  upper_ = static_cast<uint16_t>((upper_ & ~(1u << to.reg)) | half << to.reg);
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

void BlockBuilder::prove_stack(Emitter& out) {
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
  load_addend(out, other, from, offsetof(Cpu, mirror_stack_addends));
  out.lea(from, {.base = from, .index = other});
  out.memory_op(0x8a, other, {.base = from}, false);
  out.move(guest_rsp, from);
  stack_proven_ = true;
}

void BlockBuilder::emit_mirrored_leave(Emitter& out) {
  load_addend(out, t1, rbp, offsetof(Cpu, mirror_stack_addends));
  out.load(t0, {.base = rbp, .index = t1});
  out.lea(guest_rsp, {.base = rbp, .index = t1, .disp = 8});
  out.move(rbp, t0);
  stack_proven_ = true;
}

}  // namespace caisson::jit
