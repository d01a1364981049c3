#include "jit/translate/block_builder.h"

#include <Zydis/Zydis.h>

#include <algorithm>

#include "jit/interpret/decode_cache.h"
#include "jit/mmu/mirror.h"

namespace caisson::jit {
namespace {

constexpr unsigned longest_instruction = 15;

}  // namespace

// Most code was interpreted before it is translated.
DecodeStatus BlockBuilder::decode_at(std::span<const uint8_t> bytes, uint64_t distance, Instruction& out) const {
  const unsigned code_bits = block_.key.mode & mode_bits::code_32 ? 32 : 64;
  if (decoded_ != nullptr && bytes.size() == longest_instruction) {
    const uint64_t linear = rip_ + distance;
    const DecodeCache::Entry& entry = decoded_->entry(linear);
    if (entry.linear == linear && entry.code_bits == code_bits && entry.starts(bytes)) {
      out = entry.in;
      return DecodeStatus::Ok;
    }
  }
  return decode(bytes, code_bits, out);
}

bool BlockBuilder::read_items(const BlockKey& key, const CodeBytes& code) {
  items_.clear();
  unsigned at = static_cast<unsigned>(key.rip % page_size);
  const unsigned start = at;
  unsigned side_exits = 0;
  const unsigned most_side_exits = off_ & off::conditional ? 0 : max_side_exits;
  while (items_.size() < max_instructions && at < page_size) {
    items_.emplace_back();
    Item& item = items_.back();
    const auto bytes = code.page.subspan(at, std::min<size_t>(longest_instruction, page_size - at));
    item.offset = static_cast<uint16_t>(at - start);
    DecodeStatus status = decode_at(bytes, item.offset, item.in);
    if (status == DecodeStatus::Truncated && !code.next_known) return false;
    if (status == DecodeStatus::Truncated && code.next != nullptr) {
      std::array<uint8_t, longest_instruction> joined;
      std::copy(bytes.begin(), bytes.end(), joined.begin());
      std::copy_n(code.next, longest_instruction - bytes.size(), joined.begin() + bytes.size());
      status = decode_at(joined, item.offset, item.in);
      block_.next_page = code.next_page;
      block_.next_size = static_cast<uint8_t>(item.in.length - bytes.size());
    }
    // What does not decode, or goes on where nothing is mapped, is the interpreter's.
    if (status != DecodeStatus::Ok) {
      item.in = {};
      item.in.length = static_cast<uint8_t>(bytes.size());
      block_.next_size = 0;
      break;
    }
    item.kind = classify(item.in, key.mode);
    if (left_to_interpreter(item.in, item.kind, off_)) item.kind = Kind::Interpret;
    item.use = flag_use(item.in);
    at += item.in.length;
    // A jump forward that is not taken stays in the block.
    if (item.kind == Kind::JumpIf && side_exits < most_side_exits && !leads_back(item)) {
      ++side_exits;
      continue;
    }
    if (ends_block(item.kind)) break;
  }
  return true;
}

bool BlockBuilder::leads_back(const Item& item) const {
  const bool jump =
      item.kind == Kind::Jump || item.kind == Kind::JumpIf || item.kind == Kind::JumpRcx || item.kind == Kind::Call;
  if (!jump) return false;
  uint64_t target = relative_target(item.in, rip_after(item));
  // (User code's addresses count from its page: one on a page before is negative. Others wrap in 32-bit code.)
  if ((block_.key.mode & mode_bits::code_32) && !user()) target &= 0xffff'ffff;
  return static_cast<int64_t>(target - (block_.key.rip + item.offset)) <= 0;
}

// Which status flags may be read from `rip` on before they are overwritten: a look at a few instructions of this page.
uint32_t BlockBuilder::flags_live_at(uint64_t rip, std::span<const uint8_t, page_size> page) {
  if (!same_page(rip)) return all_status_flags;
  unsigned at = static_cast<unsigned>(rip % page_size);
  const unsigned start = at;
  uint32_t unknown = all_status_flags, live = 0;
  Instruction in;
  for (unsigned i = 0; i < 8 && unknown != 0 && at < page_size; ++i) {
    const auto code = page.subspan(at, std::min<size_t>(longest_instruction, page_size - at));
    if (decode_at(code, rip + (at - start) - block_.key.rip, in) != DecodeStatus::Ok) break;
    const Kind kind = classify(in, block_.key.mode);
    if (kind == Kind::Interpret || ends_block(kind)) break;
    at += in.length;
    const FlagUse use = flag_use(in);
    live |= unknown & use.reads;
    unknown &= ~(use.overwrites | use.reads);
  }
  if (peeks_ < 2) {
    block_.peek_offset[peeks_] = static_cast<uint16_t>(start);
    block_.peek_size[peeks_] = static_cast<uint8_t>(at - start);
    ++peeks_;
  } else {
    return all_status_flags;
  }
  return live | unknown;
}

void BlockBuilder::find_live_flags(const BlockKey& key, std::span<const uint8_t, page_size> page) {
  const Item& last = items_.back();
  const uint64_t next = key.rip + last.offset + last.in.length;
  peeks_ = 0;
  block_.peek_size[0] = block_.peek_size[1] = 0;
  // Where the instruction before a conditional jump sets all flags nothing stands between that could save by knowing.
  const auto worth_a_look = [&](size_t jump) {
    return jump > 0 && items_[jump - 1].use.overwrites != all_status_flags;
  };
  const auto taken = [&](size_t jump) {
    return worth_a_look(jump) ? flags_live_at(relative_target(items_[jump].in, rip_after(items_[jump])), page)
                              : all_status_flags;
  };
  uint32_t live = all_status_flags;
  switch (last.kind) {
    case Kind::Jump:
    case Kind::Call: live = flags_live_at(relative_target(last.in, next), page); break;
    case Kind::AccessCheckFlag: live = flags_live_at(next, page); break;
    case Kind::JumpIf:
    case Kind::JumpRcx:
      if (worth_a_look(items_.size() - 1)) live = taken(items_.size() - 1) | flags_live_at(next, page);
      break;
    default: break;
  }
  for (size_t i = items_.size(); i-- > 0;) {
    Item& item = items_[i];
    if (off_ & off::flags) live = all_status_flags;
    if (item.kind == Kind::JumpIf && i + 1 < items_.size()) live |= taken(i);
    item.live_out = live;
    live = (live & ~item.use.overwrites) | item.use.reads;
    if (off_ & off::flags) live = all_status_flags;
    item.live_in = live;
  }
}

// --- registers, exits ------------------------------------------------------------------------------------------------

int BlockBuilder::load_guest(Emitter& out, unsigned guest, int scratch) {
  if (!apart(guest)) return home_of(guest);
  if (guest == x86::Rsp) {
    out.load(scratch, CPU_FIELD(mirror_stack_back));
    out.lea(scratch, {.base = guest_rsp, .index = scratch});
  } else {
    out.load(scratch, cpu_at(offsetof(Cpu, gpr) + 8 * guest));
  }
  return scratch;
}

void BlockBuilder::store_guest(Emitter& out, unsigned guest, int from) {
  if (guest == x86::Rsp) {
    set_stack_pointer(out, from);
  } else {
    out.store(cpu_at(offsetof(Cpu, gpr) + 8 * guest), from);
  }
}

void BlockBuilder::code_address(Emitter& out, int reg, uint64_t address) {
  if (user()) {
    out.load(reg, CPU_FIELD(code_base));
    // From the page, not from the instruction: the distance may have one bit more than the instruction's.
    auto distance = static_cast<int64_t>(address);
    const int64_t near = std::clamp<int64_t>(distance, INT32_MIN, INT32_MAX);
    out.lea(reg, {.base = reg, .disp = static_cast<int32_t>(near)});
    distance -= near;
    if (distance != 0) out.lea(reg, {.base = reg, .disp = static_cast<int32_t>(distance)});
  } else {
    out.move_immediate(reg, address);
  }
}

// --- instructions ----------------------------------------------------------------------------------------------------

// Host registers that the instruction does not use, not even implicitly, to stand in for spilled ones while it runs. It
// must not fault: the handler takes every register for the guest's.
bool BlockBuilder::borrow_registers(const Instruction& in, unsigned count, std::array<int, 2>& out) {
  if (in.simd || in.mnemonic == ZYDIS_MNEMONIC_DIV || in.mnemonic == ZYDIS_MNEMONIC_IDIV || count > out.size())
    return false;
  uint32_t used = 0;
  for (unsigned i = 0; i < in.operand_count; ++i) {
    const Operand& operand = in.operands[i];
    if (operand.kind == Operand::Kind::Register && operand.reg_class == RegisterClass::Gpr) used |= 1u << operand.reg;
    if (operand.kind == Operand::Kind::Memory && operand.base < 16) used |= 1u << operand.base;
    if (operand.kind == Operand::Kind::Memory && operand.index < 16) used |= 1u << operand.index;
  }
  unsigned found = 0;
  for (const int candidate : {r15, r14, r13, r12, r8, rdi, rsi}) {
    if (found < count && (used & 1u << candidate) == 0) out[found++] = candidate;
  }
  return found == count;
}

void BlockBuilder::emit_native(Emitter& out, const Item& item) {
  const Instruction& in = item.in;
  const bool lea = in.mnemonic == ZYDIS_MNEMONIC_LEA;
  const Operand* memory = in.memory();
  if ((in.simd || in.mnemonic == ZYDIS_MNEMONIC_LDMXCSR || in.mnemonic == ZYDIS_MNEMONIC_STMXCSR) && !fpu_checked_) {
    free_flags(out, item);
    out.byte_op(0x80, 7, CPU_FIELD(fpu_live), 0);  // cmp byte [fpu_live], 0
    Cold cold{.what = Cold::What::Fpu};
    cold.from = out.jump_if_later(4);
    cold.back = out.size();
    cold_.push_back(cold);
    fpu_checked_ = true;
  }
  RegisterMap map = home_registers();
  const bool stack_moves = moves_stack_a_little(item);
  if (stack_moves) prove_stack(out);
  if (lea && stack_moves) {
    out.lea(guest_rsp, {.base = guest_rsp, .disp = static_cast<int32_t>(memory->displacement)});
    return;
  }
  if (lea) {
    const bool wide_address = in.address_bits == 64;
    const auto home = [&](uint8_t reg, int scratch) {
      return reg == Operand::no_register ? int{none} : load_guest(out, reg, scratch);
    };
    const Operand& to = in.operands[0];
    const int target = apart(to.reg) ? t0 : int{map[to.reg]};
    if (memory->base == Operand::rip_register) {
      const uint64_t linear = rip_after(item) + static_cast<uint64_t>(memory->displacement);
      if (in.operand_bits == 16) {
        gave_up_ = true;
        return;
      }
      if (user()) {
        code_address(out, target, linear);
        if (in.operand_bits == 32) out.register_op(0x89, target, target, false);
      } else {
        out.move_immediate(target, in.operand_bits == 64 ? linear : static_cast<uint32_t>(linear));
      }
    } else {
      const int base = home(memory->base, t0), index = home(memory->index, t1);
      const Address ea{.base = base,
                       .index = index,
                       .scale = memory->scale ? memory->scale : 1,
                       .disp = static_cast<int32_t>(memory->displacement)};
      if (in.operand_bits == 16) {
        if (apart(to.reg)) (void)load_guest(out, to.reg, target);
        if (apart(to.reg) && (base == t0 || index == t1)) {
          gave_up_ = true;
          return;
        }
        out.u8(0x66);
      }
      (void)wide_address;
      out.lea(target, ea, in.operand_bits == 64);
    }
    if (apart(to.reg)) store_guest(out, to.reg, target);
    return;
  }

  // Spilled registers that the instruction names, and scratch registers for them.
  std::array<uint8_t, 3> named{};
  std::array<bool, 3> reads{}, writes{};
  unsigned count = 0;
  for (unsigned i = 0; i < in.operand_count; ++i) {
    const Operand& operand = in.operands[i];
    if (operand.kind != Operand::Kind::Register || operand.reg_class != RegisterClass::Gpr || !apart(operand.reg))
      continue;
    if (operand.reg == x86::Rsp && stack_moves) continue;
    if (operand.reg == x86::Rsp && operand.writes && !may_set_stack_pointer(in)) {
      gave_up_ = true;
      return;
    }
    unsigned n = 0;
    while (n < count && named[n] != operand.reg) ++n;
    if (n == count) {
      if (count == named.size()) {
        gave_up_ = true;
        return;
      }
      named[count++] = operand.reg;
    }
    // A narrow or conditional write keeps the rest of the register.
    reads[n] |= operand.reads || operand.bits < 32 || in.category == ZYDIS_CATEGORY_CMOV ||
                in.mnemonic == ZYDIS_MNEMONIC_BSF || in.mnemonic == ZYDIS_MNEMONIC_BSR ||
                in.mnemonic == ZYDIS_MNEMONIC_CMPXCHG;
    writes[n] |= operand.writes;
  }
  const unsigned free_scratch = memory != nullptr ? 1 : 2;
  std::array<int, 2> borrowed{none, none};
  if (count > free_scratch && memory != nullptr && mirrored()) {
    gave_up_ = true;  // the access may fault
    return;
  }
  if (count > free_scratch && !borrow_registers(in, count - free_scratch, borrowed)) {
    gave_up_ = true;
    return;
  }
  // No REX prefix can stand with AH, CH, DH, BH: work on the low byte with the two swapped, or, where a fault could
  // show that, on a copy in a scratch register.
  int high = -1;
  bool high_written = false;
  if (memory != nullptr) {
    for (unsigned i = 0; i < in.operand_count; ++i) {
      if (in.operands[i].kind != Operand::Kind::Register || in.operands[i].reg_class != RegisterClass::HighByte)
        continue;
      high = in.operands[i].reg;
      high_written = in.operands[i].writes;
    }
  }
  // (Its implicit AL must stay where it is.)
  if (high >= 0 && (in.mnemonic == ZYDIS_MNEMONIC_CMPXCHG || (mirrored() && count > 0))) {
    gave_up_ = true;
    return;
  }
  Address address;
  if (memory != nullptr) {
    // A spilled register can take T0 where the address does not need it.
    const bool locks = is_locked(in);
    const bool collapse = count > 0 || high >= 0 || locks;
    const bool write = memory->writes;
    address = emit_check(out, item, *memory, memory->bits / 8u, write, collapse);
    if (locks) leave_if_split(out, item, address, memory->bits / 8u);
  }
  flags_for(out, item);  // uses T1: the address is collapsed where this does anything
  const std::array<int, 3> with_memory{t1, borrowed[0], borrowed[1]}, without{t0, t1, borrowed[0]};
  static constexpr std::array<size_t, 2> lent{offsetof(Cpu, scratch) + 8, offsetof(Cpu, scratch) + 24};
  for (unsigned i = 0; i < 2; ++i) {
    if (borrowed[i] != none) out.store(cpu_at(lent[i]), borrowed[i]);
  }
  for (unsigned n = 0; n < count; ++n) {
    const int scratch = memory != nullptr ? with_memory[n] : without[n];
    map[named[n]] = static_cast<int8_t>(scratch);
    if (reads[n]) (void)load_guest(out, named[n], scratch);
  }
  const auto swap_high = [&] {  // xchg al, ah …
    out.u8(0x86);
    out.u8(0xc0 | static_cast<unsigned>(high) << 3 | static_cast<unsigned>(high + 4));
  };
  bool done = true;
  if (high >= 0) {
    Instruction low = in;
    for (unsigned i = 0; i < low.operand_count; ++i) {
      if (low.operands[i].reg_class == RegisterClass::HighByte) low.operands[i].reg_class = RegisterClass::Gpr;
    }
    if (mirrored()) {
      out.rotate_right(t1, high, 8);
      map[static_cast<size_t>(high)] = t1;
      done = rewrite(out, low, map, &address);
      if (high_written) {
        swap_high();
        out.u8(0x44), out.u8(0x88), out.u8(0xc0 | (t1 & 7) << 3 | high);  // mov al, t1b …
        swap_high();
      }
    } else {
      swap_high();
      done = rewrite(out, low, map, &address);
      swap_high();
    }
  } else if (memory != nullptr && !in.has_modrm) {
    // MOV between the accumulator and an absolute address (A0-A3).
    if (in.bytes[in.opcode_offset] < 0xa0 || in.bytes[in.opcode_offset] > 0xa3 || in.encoding != Encoding::Legacy) {
      gave_up_ = true;
      return;
    }
    static constexpr std::array<uint8_t, 4> opcodes{0x8a, 0x8b, 0x88, 0x89};
    if (in.operand_bits == 16 && (in.bytes[in.opcode_offset] & 1)) out.u8(0x66);
    out.memory_op(opcodes[in.bytes[in.opcode_offset] & 3], rax, address, in.operand_bits == 64);
  } else {
    done = rewrite(out, in, map, memory != nullptr ? &address : nullptr);
  }
  if (!done) {
    gave_up_ = true;
    return;
  }
  for (unsigned n = 0; n < count; ++n) {
    if (writes[n]) store_guest(out, named[n], map[named[n]]);
  }
  for (unsigned i = 0; i < 2; ++i) {
    if (borrowed[i] != none) out.load(borrowed[i], cpu_at(lent[i]));
  }
  flags_after(item);
}

void BlockBuilder::emit_push(Emitter& out, const Item& item) {
  const bool wide = !(block_.key.mode & mode_bits::code_32);
  const int size = wide ? 8 : 4;
  if (item.kind == Kind::PushMemory) {
    const Address from = emit_check(out, item, *item.in.memory(), static_cast<unsigned>(size), false, false);
    out.memory_op(0x8b, t0, from, wide);
    out.store(cpu_at(offsetof(Cpu, scratch) + 16), t0);
  }
  const Address to = emit_stack_check(out, item, guest_rsp, -size, static_cast<unsigned>(size), true);
  if (item.kind == Kind::PushImmediate) {
    out.memory_op(0xc7, 0, to, wide);
    out.u32(static_cast<uint32_t>(item.in.operands[0].immediate));
  } else if (item.kind == Kind::PushMemory) {
    // In 32-bit code the address uses T0.
    out.lea(t1, to);
    out.load(t0, cpu_at(offsetof(Cpu, scratch) + 16));
    out.memory_op(0x89, t0, {.base = t1}, wide);
  } else {
    const int from = load_guest(out, item.in.operands[0].reg, t0);
    out.memory_op(0x89, from, to, wide);
  }
  out.lea(guest_rsp, {.base = guest_rsp, .disp = -size}, wide);
}

void BlockBuilder::emit_pop(Emitter& out, const Item& item) {
  const bool wide = !(block_.key.mode & mode_bits::code_32);
  const int size = wide ? 8 : 4;
  const Address from = emit_stack_check(out, item, guest_rsp, 0, static_cast<unsigned>(size), false);
  const unsigned guest = item.in.operands[0].reg;
  if (guest == x86::Rsp) {
    if (mirrored()) {
      out.load(t0, from);
      set_stack_pointer(out, t0);
    } else {
      out.memory_op(0x8b, guest_rsp, from, wide);
    }
    return;
  }
  const int to = spilled(guest) ? t0 : static_cast<int>(guest);
  out.memory_op(0x8b, to, from, wide);
  if (spilled(guest)) out.store(cpu_at(offsetof(Cpu, gpr) + 8 * guest), to);
  out.lea(guest_rsp, {.base = guest_rsp, .disp = size}, wide);
}

void BlockBuilder::emit_leave(Emitter& out, const Item& item) {
  if (mirrored()) {
    emit_mirrored_leave(out);
    return;
  }
  const bool wide = !(block_.key.mode & mode_bits::code_32);
  const int size = wide ? 8 : 4;
  const Address from = emit_stack_check(out, item, rbp, 0, static_cast<unsigned>(size), false);
  out.memory_op(0x8b, t0, from, wide);
  out.lea(guest_rsp, {.base = rbp, .disp = size}, wide);
  out.move(rbp, t0);
}

void BlockBuilder::emit_item(Emitter& out, const Item& item) {
  if (&item == &items_.back() && block_.next_size != 0 && item.kind != Kind::Interpret) emit_next_page_guard(out, item);
  points_.push_back({.host_offset = static_cast<uint16_t>(out.size()),
                     .guest_offset = static_cast<uint16_t>(item.offset & 0x7fff),
                     .flags_in_memory = flags_ == Flags::InMemory});
  switch (item.kind) {
    case Kind::Native: emit_native(out, item); break;
    case Kind::Nothing: break;
    case Kind::PushReg:
    case Kind::PushImmediate:
    case Kind::PushMemory: emit_push(out, item); break;
    case Kind::PopReg: emit_pop(out, item); break;
    case Kind::Leave: emit_leave(out, item); break;
    case Kind::ClearInterrupts:
    case Kind::SetInterrupts: emit_interrupt_flag(out, item); break;
    case Kind::PushFlags: emit_push_flags(out, item); break;
    case Kind::ReadTime: emit_read_time(out, item); break;
    case Kind::BitTest: emit_bit_test(out, item); break;
    case Kind::String: emit_string(out, item); break;
    case Kind::SwapGs: emit_swap_gs(out); break;
    case Kind::ClearDirection: emit_clear_direction(out, item); break;
    case Kind::JumpIf:
      if (&item != &items_.back()) {
        flags_to_eflags(out);
        emit_jump_if(out, item);
        break;
      }
      [[fallthrough]];
    default: emit_end(out, item); break;
  }
}

// Nothing in the block has to do with status flags, and a look-up ends it: it is better off with them in memory.
bool BlockBuilder::passes_flags_through() const {
  if (off_ & off::flags) return false;
  for (const Item& item : items_) {
    if (item.use.reads != 0 || item.use.touches) return false;
    switch (item.kind) {
      case Kind::Native:
      case Kind::Nothing:
      case Kind::PushReg:
      case Kind::PushImmediate:
      case Kind::PushMemory:
      case Kind::PopReg:
      case Kind::Leave: break;
      case Kind::Return:
      case Kind::JumpIndirect:
      case Kind::CallIndirect: return true;
      default: return false;
    }
  }
  return false;
}

// Where look-ups enter (the block's start: T0 = linear address, the guest's status flags in memory) and where chained
// jumps do (flags in EFLAGS). Each begins with an instruction of 5 to 8 bytes that can become a jump while others run
// through it: it tells the stale exit where the flags are. (But a CPU that stands between the two when the block dies
// finds the flags of the look-up's comparison: it runs code that another CPU changes without the synchronization that
// vol. 3, 9.1.3 asks for.)
void BlockBuilder::emit_entries(Emitter& out) {
  const bool through = passes_flags_through();
  block_.start_to_entry = items_.front().live_in != 0 && !through;
  if (block_.start_to_entry) {
    out.call(stubs_.restore_flags);
  }
  if (user()) {
    // Notes the page that the block runs in: lea t0, [t0 - offset]; mov [code_base], t0
    out.u8(0x4d), out.u8(0x8d), out.u8(0x80 | (t0 & 7) * 9), out.u32(0 - static_cast<uint32_t>(block_.key.rip));
    out.store(CPU_FIELD(code_base), t0);
  } else if (!block_.start_to_entry) {
    out.u8(0x0f), out.u8(0x1f), out.u8(0x84), out.u8(0x00), out.u32(0);  // nop of 8 bytes
  }
  size_t body = 0;
  if (through) {
    body = out.jump_short_later();
  }
  out.align(8, 0);
  block_.entry_offset = static_cast<uint8_t>(out.size());
  if (polls_first()) return;                                             // with an instruction that is long enough
  out.u8(0x0f), out.u8(0x1f), out.u8(0x44), out.u8(0x00), out.u8(0x00);  // nop of 5 bytes
  if (through) {
    save_flags(out);
    out.land8(body);
  }
}

bool BlockBuilder::build(CodeCache& cache, const BlockKey& key, const CodeBytes& code, const Cpu& now) {
  decoded_ = now.interpreter.get();
  rip_ = now.rip;
  block_ = {};
  block_.key = key;
  if (!read_items(key, code)) return false;
  find_live_flags(key, code.page);
  plan_windows();

  for (;;) {
    cold_.clear();
    points_.clear();
    flags_ = Flags::InEflags;
    fpu_checked_ = stack_proven_ = code_proven_ = gave_up_ = false;
    if (mirrored()) first_guesses(now);
    Emitter out(cache.write_position(), cache.run_position(), room_needed);
    emit_entries(out);
    const Item last = items_.back();
    if (leads_back(last)) {
      free_flags(out, items_.front());
      emit_exit_request_test(out, polls_first());
      Cold cold{.what = Cold::What::Poll};
      cold.from = out.jump_if_later(5);
      cold.target = key.rip;
      cold.flags_in_memory = flags_ == Flags::InMemory;
      cold_.push_back(cold);
    }
    size_t emitted = 0;
    for (const Item& item : items_) {
      emit_item(out, item);
      if (mirrored()) learn(item);
      if (gave_up_ || out.overflowed() || out.size() > room_needed / 2) break;
      ++emitted;
    }
    if (emitted < items_.size()) {
      // Ends with the instruction that cannot be expressed; everything again for the shorter block.
      items_.resize(emitted + 1);
      items_.back().kind = Kind::Interpret;
      if (items_.back().offset + items_.back().in.length + key.rip % page_size <= page_size) block_.next_size = 0;
      find_live_flags(key, code.page);
      plan_windows();
      continue;
    }
    if (!ends_block(last.kind)) {
      exit_to(out, rip_after(last), all_status_flags);
    }
    block_.cold_offset = static_cast<uint16_t>(out.size());
    emit_cold(out);
    block_.stale_offset = static_cast<uint16_t>(out.size());
    depart(out, {.kind = Departure::Kind::Stale}, key.rip, 0);
    block_.host_size = static_cast<uint16_t>(out.size());
    block_.guest_size = static_cast<uint16_t>(last.offset + last.in.length);
    block_.instructions = static_cast<uint8_t>(items_.size());
    return true;
  }
}

}  // namespace caisson::jit
