// Before an instruction touches memory: the look-up of its page, with the guest's status flags put aside and back.
#include "jit/translate/block_builder.h"

namespace caisson::jit {

// --- flags -----------------------------------------------------------------------------------------------------------

void BlockBuilder::save_flags(Emitter& out) {
  out.move(t1, rax);
  out.u8(0x9f);                              // lahf
  out.u8(0x0f), out.u8(0x90), out.u8(0xc0);  // seto al
  out.store32(CPU_FIELD(flags_ax), rax);
  out.move(rax, t1);
  flags_ = Flags::InMemory;
  flags_moved(out);
}

void BlockBuilder::flags_to_eflags(Emitter& out) {
  if (flags_ == Flags::InEflags) return;
  out.move(t1, rax);
  out.load32(rax, CPU_FIELD(flags_ax));
  out.u8(0x04), out.u8(0x7f);  // add al, 7Fh
  out.u8(0x9e);                // sahf
  out.move(rax, t1);
  flags_ = Flags::InEflags;
  flags_moved(out);
}

void BlockBuilder::flags_moved(Emitter& out) {
  if (!mirrored() || points_.empty()) return;
  HostPoint point = points_.back();
  point.host_offset = static_cast<uint16_t>(out.size());
  point.flags_in_memory = flags_ == Flags::InMemory;
  points_.push_back(point);
}

void BlockBuilder::free_flags(Emitter& out, const Item& item) {
  if (item.live_in != 0 && flags_ == Flags::InEflags) save_flags(out);
}

bool BlockBuilder::restores_flags(const Item& item) const {
  // It reads them, or changes some and leaves others that matter.
  const uint32_t through = item.live_out & ~item.use.overwrites;
  return flags_ == Flags::InMemory && (item.use.reads != 0 || (item.use.touches && through != 0));
}

void BlockBuilder::flags_for(Emitter& out, const Item& item) {
  if (restores_flags(item)) flags_to_eflags(out);
}

void BlockBuilder::flags_after(const Item& item) {
  if (item.use.touches) flags_ = Flags::InEflags;
}

// --- memory checks ---------------------------------------------------------------------------------------------------

// First byte's address in T1, last byte's in T0: T1 becomes the addend. The caller says in the cold part, which it
// gets, how a miss finds the address again.
BlockBuilder::Cold& BlockBuilder::look_up(Emitter& out, const Item& item, unsigned size, bool write) {
  const unsigned mode = block_.key.mode & mode_bits::tlb_mask;
  const size_t tlb = offsetof(Cpu, tlb) + mode * sizeof(Tlb);
  const size_t tags = tlb + (write ? offsetof(Tlb, write_tag) : offsetof(Tlb, read_tag));
  out.shift_right32(t1, 9);
  out.and32(t1, (tlb_entries - 1) << 3);
  out.and_page(t0);
  out.compare(t0, {.base = t1, .disp = static_cast<int32_t>(tags), .cpu = true});
  Cold cold{.what = Cold::What::Fill};
  cold.from = out.jump_if_later(5);
  out.load(t1, {.base = t1, .disp = static_cast<int32_t>(tlb + offsetof(Tlb, addend)), .cpu = true});
  cold.back = out.size();
  cold.word = size | (write ? fill_word::write : 0) | (flags_ == Flags::InMemory ? fill_word::flags_in_memory : 0) |
              uint32_t{item.offset} << fill_word::guest_offset_shift;
  cold_.push_back(cold);
  return cold_.back();
}

// `ea` uses registers that survive the check. The result is an address for the instruction; `collapse`: in T0 alone,
// so that T1 is free.
Address BlockBuilder::check_simple(Emitter& out, const Item& item, const Address& ea, unsigned size, bool write,
                                   bool collapse) {
  free_flags(out, item);
  const bool wide = !(block_.key.mode & mode_bits::code_32);
  Address last = ea;
  last.disp += static_cast<int32_t>(size - 1);
  out.lea(t1, ea, wide);
  out.lea(t0, last, wide);
  look_up(out, item, size, write).address = ea;
  const bool restore = restores_flags(item);
  if (wide && ea.index == none && !collapse && !restore) return {.base = ea.base, .index = t1, .disp = ea.disp};
  out.lea(t0, ea, wide);
  if (!collapse && !restore) return {.base = t0, .index = t1};
  out.lea(t0, {.base = t0, .index = t1});
  return {.base = t0};
}

// The linear address is in T0.
Address BlockBuilder::check_computed(Emitter& out, const Item& item, unsigned size, bool write) {
  if (mirrored()) {
    (void)mirror_reach(out, item, t0, 1, false);
    out.lea(t0, {.base = t0, .index = t1});
    return {.base = t0};
  }
  out.store(CPU_FIELD(scratch), t0);
  out.move(t1, t0);
  if (size > 1)
    out.lea(t0, {.base = t0, .disp = static_cast<int32_t>(size - 1)}, !(block_.key.mode & mode_bits::code_32));
  look_up(out, item, size, write).address_saved = true;
  out.load(t0, CPU_FIELD(scratch));
  out.lea(t0, {.base = t0, .index = t1});
  return {.base = t0};
}

void BlockBuilder::linear_to_t0(Emitter& out, const Item& item, const Operand& memory) {
  const bool wide = !(block_.key.mode & mode_bits::code_32);
  if (memory.base == Operand::rip_register) {
    code_address(out, t0, rip_after(item) + static_cast<uint64_t>(memory.displacement));
  } else if (memory.displacement != static_cast<int32_t>(memory.displacement)) {
    out.move_immediate(t0, static_cast<uint64_t>(memory.displacement));  // opcodes A0 to A3: nothing but an address
  } else {
    const auto home = [&](uint8_t reg, int scratch) {
      return reg == Operand::no_register ? int{none} : load_guest(out, reg, scratch);
    };
    const int base = home(memory.base, t0), index = home(memory.index, t1);
    out.lea(t0,
            {.base = base,
             .index = index,
             .scale = memory.scale ? memory.scale : 1,
             .disp = static_cast<int32_t>(memory.displacement)},
            wide);
  }
  if (memory.segment >= x86::Fs) {
    const Address base = segment_base(memory.segment);
    if (mirrored()) {
      out.load(t1, base);
      out.lea(t0, {.base = t0, .index = t1});
    } else {
      out.add(t0, base);
    }
    if (!wide) out.register_op(0x89, t0, t0, false);  // 32-bit linear addresses wrap
  }
}

Address BlockBuilder::emit_check(Emitter& out, const Item& item, const Operand& memory, unsigned size, bool write,
                                 bool collapse) {
  if (item.operand_window != Item::no_window) {
    return check_window(out, item, windows_[item.operand_window], static_cast<int32_t>(memory.displacement), collapse);
  }
  if (mirrored()) return mirror_address(out, item, memory, collapse);
  const bool wide = !(block_.key.mode & mode_bits::code_32);
  const bool based = memory.segment >= x86::Fs;
  const auto home = [](uint8_t reg) { return reg == Operand::no_register ? int{none} : home_of(reg); };
  if (memory.base == Operand::rip_register ||
      (memory.base == Operand::no_register && memory.index == Operand::no_register)) {
    const int64_t linear = memory.base == Operand::rip_register
                               ? static_cast<int64_t>(rip_after(item)) + memory.displacement
                               : memory.displacement;
    if (memory.base == Operand::rip_register && user()) {
      free_flags(out, item);
      code_address(out, t0, static_cast<uint64_t>(linear));
      if (based) out.add(t0, segment_base(memory.segment));
      return check_computed(out, item, size, write);
    }
    if (!based && linear == static_cast<int32_t>(linear) && static_cast<int32_t>(linear) < INT32_MAX - 64 && wide) {
      return check_simple(out, item, {.disp = static_cast<int32_t>(linear)}, size, write, collapse);
    }
    free_flags(out, item);
    out.move_immediate(t0, wide ? static_cast<uint64_t>(linear) : static_cast<uint32_t>(linear));
  } else if (!based && !spilled(memory.base) && !spilled(memory.index) && memory.displacement < INT32_MAX - 64) {
    return check_simple(out, item,
                        {.base = home(memory.base),
                         .index = home(memory.index),
                         .scale = memory.scale ? memory.scale : 1,
                         .disp = static_cast<int32_t>(memory.displacement)},
                        size, write, collapse);
  } else {
    free_flags(out, item);
    linear_to_t0(out, item, memory);
    return check_computed(out, item, size, write);
  }
  if (based) {
    out.add(t0, segment_base(memory.segment));
    if (!wide) out.register_op(0x89, t0, t0, false);  // 32-bit linear addresses wrap
  }
  return check_computed(out, item, size, write);
}

// A locked access across cache lines is the interpreter's: see crosses_line(). T1 is no part of `address`.
void BlockBuilder::leave_if_split(Emitter& out, const Item& item, const Address& address, unsigned size) {
  constexpr uint32_t line = 64;
  if (size == 1) return;
  free_flags(out, item);
  Address plain = address;
  plain.gs = false;  // (its base is that of a page)
  out.lea(t1, plain);
  out.and32(t1, line - 1);
  out.register_op(0x81, 7, t1, false), out.u32(line - size);  // cmp t1d, 64 - size
  leave_if_not(out, item, 6);                                 // below or equal
}

Address BlockBuilder::emit_stack_check(Emitter& out, const Item& item, int base, int32_t disp, unsigned size,
                                       bool write) {
  if (mirrored() && base == guest_rsp) {
    stack_proven_ = true;
    return {.base = guest_rsp, .disp = disp};
  }
  if (item.stack_window != Item::no_window) return check_window(out, item, windows_[item.stack_window], disp, false);
  return check_simple(out, item, {.base = base, .disp = disp}, size, write, false);
}

}  // namespace caisson::jit
