// How blocks end and how they are left: jumps, calls, returns, the guard of what stands on the next page, and the cold
// parts behind the block.
#include <Zydis/Zydis.h>

#include "jit/translate/block_builder.h"

namespace caisson::jit {

void BlockBuilder::depart(Emitter& out, Departure departure, uint64_t target, size_t slot) {
  departure.target = target;
  departure.emit(out, stubs_.depart, slot);
}

void BlockBuilder::leave_to_interpreter(Emitter& out, uint64_t rip) {
  depart(out, {.kind = Departure::Kind::Interpret, .flags_in_memory = flags_ == Flags::InMemory}, rip, 0);
}

// The jump to what Cpu::jumps knows of T0, or out to the dispatcher. What is behind the jump may want the status flags
// and seldom does: they go to memory, and whoever does brings them back. Branches whose target is in a register or in
// memory have the look-up in line, for the processor to predict each by itself.
void BlockBuilder::exit_indirect(Emitter& out, const Item& item, int32_t undo) {
  if (flags_ == Flags::InEflags) save_flags(out);
  Cold cold{.what = Cold::What::Lookup};
  cold.branch = {.guest_offset = item.offset, .undo = undo};
  emit_exit_request_test(out);
  cold.from = out.jump_if_later(5);
  cold_.push_back(cold);
  cold.from = emit_jump_lookup(out, block_.key.mode & mode_bits::tlb_mask);
  cold_.push_back(cold);
}

void BlockBuilder::exit_to(Emitter& out, uint64_t target, uint32_t live) {
  if ((block_.key.mode & mode_bits::code_32) && !user() && target > 0xffff'ffff) {
    // Round the end of the address space: forward again and again, and no jump back that would look for exit requests.
    depart(out, {.flags_in_memory = flags_ == Flags::InMemory}, target & 0xffff'ffff, 0);
    return;
  }
  const bool inside = same_page(target);
  if (!inside && user()) {
    // Another address space may map another page there: looked up each time.
    code_address(out, t0, target);
    if (block_.key.mode & mode_bits::code_32) out.register_op(0x89, t0, t0, false);
    if (flags_ == Flags::InEflags) save_flags(out);
    // (The stub looks for exit requests: code may go on through pages that are all the same for a long time.)
    out.jump(stubs_.lookup[block_.key.mode & mode_bits::tlb_mask]);
    return;
  }
  if (live != 0) flags_to_eflags(out);
  out.align_rel32(1);
  Cold cold{.what = Cold::What::Exit};
  cold.from = out.jump_later();
  cold.target = target;
  cold.cross_page = !inside;
  cold_.push_back(cold);
}

// The bytes on the next page are the ones that were translated only while that page is mapped there: the cache of code
// pages is emptied of whatever the guest unmaps. What it does not know the interpreter fetches, and enters there.
void BlockBuilder::emit_next_page_guard(Emitter& out, const Item& item) {
  static_assert(sizeof(CodePage) == 32);
  free_flags(out, item);
  const auto field = [](size_t offset, int base) {
    return Address{.base = base, .disp = static_cast<int32_t>(offsetof(Cpu, code_pages) + offset), .cpu = true};
  };
  const uint64_t next = (block_.key.rip + item.offset + page_size) & ~(page_size - 1);
  if (user()) {
    code_address(out, t0, page_size);
    if (block_.key.mode & mode_bits::code_32) out.register_op(0x89, t0, t0, false);
  } else {
    out.move_immediate(t0, block_.key.mode & mode_bits::code_32 ? next & 0xffff'ffff : next);
  }
  out.register_op(0x89, t0, t1, false);
  out.shift_right32(t1, 7);
  out.and32(t1, (code_page_entries - 1) << 5);
  out.compare(t0, field(offsetof(CodePage, linear), t1));
  leave_if_not(out, item, 4);
  out.move_immediate(t0, block_.next_page);
  out.compare(t0, field(offsetof(CodePage, gpa), t1));
  leave_if_not(out, item, 4);
  out.byte_op(0x80, 7, field(offsetof(CodePage, user), t1), user() ? 1 : 0);  // cmp byte [t1 + user], 0 or 1
  leave_if_not(out, item, 4);
}

// Leaves if the condition holds; the status flags are in EFLAGS.
void BlockBuilder::emit_jump_if(Emitter& out, const Item& item) {
  const Instruction& in = item.in;
  const bool wide = !(block_.key.mode & mode_bits::code_32);
  const uint64_t next = wide || user() ? rip_after(item) : rip_after(item) & 0xffff'ffff;
  const unsigned condition = in.opcode & 15u;
  const uint64_t target = wide || user() ? relative_target(in, next) : relative_target(in, next) & 0xffff'ffff;
  if (same_page(target) || !user()) {
    out.align_rel32(2);
    Cold cold{.what = Cold::What::Exit};
    cold.from = out.jump_if_later(condition);
    cold.target = target;
    cold.cross_page = !same_page(target);
    cold_.push_back(cold);
  } else {
    const size_t not_taken = out.jump_if_later(condition ^ 1);
    const Flags before = flags_;
    exit_to(out, target, all_status_flags);
    out.land(not_taken);
    flags_ = before;
  }
}

void BlockBuilder::emit_end(Emitter& out, const Item& item) {
  const Instruction& in = item.in;
  const bool wide = !(block_.key.mode & mode_bits::code_32);
  const int size = wide ? 8 : 4;
  const uint64_t next = wide || user() ? rip_after(item) : rip_after(item) & 0xffff'ffff;
  const auto push_return = [&] {
    const Address to = emit_stack_check(out, item, guest_rsp, -size, static_cast<unsigned>(size), true);
    if (!user() && (!wide || static_cast<int64_t>(next) == static_cast<int32_t>(next))) {
      out.memory_op(0xc7, 0, to, wide);
      out.u32(static_cast<uint32_t>(next));
    } else {
      // The stack address may use T0 only in 32-bit code: then it is put together first.
      if (to.base == t0) {
        out.lea(t1, to);
        code_address(out, t0, next);
        out.memory_op(0x89, t0, {.base = t1}, wide);
      } else {
        code_address(out, t0, next);
        out.memory_op(0x89, t0, to, wide);
      }
    }
    out.lea(guest_rsp, {.base = guest_rsp, .disp = -size}, wide);
  };
  const auto target_to_t0 = [&] {
    const Operand& operand = in.operands[0];
    if (operand.kind == Operand::Kind::Memory) {
      const Address from = emit_check(out, item, operand, static_cast<unsigned>(size), false, false);
      out.memory_op(0x8b, t0, from, wide);
    } else {
      const int from = load_guest(out, operand.reg, t0);
      if (from != t0) out.register_op(0x89, from, t0, wide);
    }
  };
  switch (item.kind) {
    case Kind::Jump: exit_to(out, relative_target(in, next), item.live_out); break;
    case Kind::JumpIf:
      flags_to_eflags(out);
      emit_jump_if(out, item);
      exit_to(out, next, item.live_out);
      break;
    case Kind::JumpRcx: {
      if (item.live_out != 0) flags_to_eflags(out);
      const Flags before = flags_;
      if (!wide || in.mnemonic == ZYDIS_MNEMONIC_JECXZ) out.u8(0x67);  // jecxz
      const size_t taken = out.jump_rcx_zero_later();
      exit_to(out, next, item.live_out);
      out.land8(taken);
      flags_ = before;
      exit_to(out, relative_target(in, next), item.live_out);
      break;
    }
    case Kind::Call:
      push_return();
      exit_to(out, relative_target(in, next), item.live_out);
      break;
    case Kind::JumpIndirect:
      target_to_t0();
      exit_indirect(out, item, 0);
      break;
    case Kind::CallIndirect:
      if (in.operands[0].kind == Operand::Kind::Register && in.operands[0].reg != x86::Rsp) {
        push_return();
        target_to_t0();
      } else {
        target_to_t0();
        out.store(cpu_at(offsetof(Cpu, scratch) + 16), t0);
        push_return();
        out.load(t0, cpu_at(offsetof(Cpu, scratch) + 16));
      }
      exit_indirect(out, item, size);
      break;
    case Kind::Return: {
      const Address from = emit_stack_check(out, item, guest_rsp, 0, static_cast<unsigned>(size), false);
      out.memory_op(0x8b, t0, from, wide);
      const int32_t extra = in.operand_count > 0 && in.operands[0].kind == Operand::Kind::Immediate
                                ? static_cast<int32_t>(in.operands[0].immediate & 0xffff)
                                : 0;
      out.lea(guest_rsp, {.base = guest_rsp, .disp = size + extra}, wide);
      exit_indirect(out, item, -size - extra);
      break;
    }
    case Kind::AccessCheckFlag:
      emit_access_check_flag(out, item);
      exit_to(out, next, item.live_out);
      break;
    case Kind::System: emit_system(out, item); break;
    default: leave_to_interpreter(out, block_.key.rip + item.offset); break;
  }
}

// In a translation of the remaining instructions in which nothing is taken for granted.
void BlockBuilder::go_on_carefully(Emitter& out, const Cold& cold) {
  if (cold.flags_in_memory) out.call(stubs_.restore_flags);
  out.align_rel32(1);
  const size_t slot = out.jump_later();
  out.land(slot);
  depart(out, {.careful = true}, cold.target, slot);
}

void BlockBuilder::emit_cold(Emitter& out) {
  for (size_t i = 0; i < cold_.size(); ++i) {
    const Cold& cold = cold_[i];
    out.land(cold.from);
    switch (cold.what) {
      case Cold::What::Fill:
        if (cold.address_saved) {
          out.load(t0, CPU_FIELD(scratch));
        } else {
          out.lea(t0, cold.address, !(block_.key.mode & mode_bits::code_32));
        }
        out.move_immediate(t1, cold.word);
        out.call(stubs_.fill);
        out.jump_to_offset(cold.back);
        break;
      case Cold::What::Window: {
        out.lea(t0, window_address(out, cold.window, cold.window.from));
        out.move_immediate(t1, cold.word);
        out.call(stubs_.fill_window);
        out.jump_if_to_offset(5, cold.back);
        go_on_carefully(out, cold);
        break;
      }
      case Cold::What::Fpu:
        out.call(stubs_.fpu);
        out.jump_to_offset(cold.back);
        break;
      case Cold::What::Exit: depart(out, {.cross_page = cold.cross_page}, cold.target, cold.from); break;
      case Cold::What::Lookup:
        // The two ways here stand one behind the other.
        if (i + 1 < cold_.size() && cold_[i + 1].what == Cold::What::Lookup) out.land(cold_[++i].from);
        cold.branch.emit(out, stubs_.lookup_miss[block_.key.mode & mode_bits::tlb_mask]);
        break;
      case Cold::What::Interpret:
        depart(out, {.kind = Departure::Kind::Interpret, .flags_in_memory = cold.flags_in_memory}, cold.target, 0);
        break;
      case Cold::What::Careful: go_on_carefully(out, cold); break;
      case Cold::What::Mirror: emit_other_region(out, cold); break;
      case Cold::What::Poll: depart(out, {.flags_in_memory = cold.flags_in_memory}, cold.target, 0); break;
    }
  }
}

}  // namespace caisson::jit
