#include "jit/translate/stubs.h"

#include <array>
#include <cstddef>
#include <initializer_list>

#include "base/check.h"
#include "jit/translate/emitter.h"
#include "jit/translate/slow_path.h"

namespace caisson::jit {
namespace {

constexpr size_t gpr_offset(unsigned guest) { return offsetof(Cpu, gpr) + 8 * guest; }

constexpr std::array callee_saved{rbx, rbp, r12, r13, r14, r15};
// The guest's registers that live where C++ functions may destroy them.
constexpr std::array caller_saved{x86::Rax, x86::Rcx, x86::Rdx, x86::Rsi, x86::Rdi, x86::R8, x86::Rsp};
static_assert(guest_rsp == r9 && t0 == r10 && t1 == r11);

void push(Emitter& out, int reg) {
  if (reg >= 8) out.u8(0x41);
  out.u8(0x50 | (reg & 7));
}
void pop(Emitter& out, int reg) {
  if (reg >= 8) out.u8(0x41);
  out.u8(0x58 | (reg & 7));
}
void adjust_stack(Emitter& out, int8_t by) {  // lea rsp, [rsp + by]: flags stay
  out.lea(rsp, {.base = rsp, .disp = by});
}
void call_function(Emitter& out, const void* function) {
  out.move_immediate(rax, reinterpret_cast<uint64_t>(function));
  out.u8(0xff);
  out.u8(0xd0);
}
void save_flags(Emitter& out, const Address& to) {  // destroys RAX
  out.u8(0x9f);                                     // lahf
  out.u8(0x0f), out.u8(0x90), out.u8(0xc0);         // seto al
  out.store32(to, rax);
}
void restore_flags(Emitter& out) {  // destroys RAX
  out.load32(rax, CPU_FIELD(flags_ax));
  out.u8(0x04), out.u8(0x7f);  // add al, 7Fh: OF from AL
  out.u8(0x9e);                // sahf
}

void store_guest(Emitter& out) {
  for (unsigned i = 0; i < 16; ++i) {
    if (!spilled(i)) out.store(cpu_at(gpr_offset(i)), home_of(i));
  }
}
void store_caller_saved(Emitter& out) {
  for (const unsigned guest : caller_saved) out.store(cpu_at(gpr_offset(guest)), home_of(guest));
}
void load_caller_saved(Emitter& out) {
  for (const unsigned guest : caller_saved) out.load(home_of(guest), cpu_at(gpr_offset(guest)));
}

// Calls a C++ function with the Cpu as first argument; the guest's registers are kept, T0 and T1 are not. `arguments`
// moves from T0 and T1 to where the function wants them, `results` back.
template <class Arguments, class Results>
void call_keeping_guest(Emitter& out, const void* function, Arguments arguments, Results results) {
  store_caller_saved(out);
  out.load(rdi, CPU_FIELD(self));
  arguments();
  adjust_stack(out, -8);
  call_function(out, function);
  adjust_stack(out, 8);
  results();
  load_caller_saved(out);
}

void leave_tail(Emitter& out) {
  out.load(rsp, CPU_FIELD(host_rsp));
  for (size_t i = callee_saved.size(); i-- > 0;) pop(out, callee_saved[i]);
  out.u8(0xc3);
}

const uint8_t* begin(Emitter& out) {
  out.align(16, 0);
  return out.run_address();
}

// t1 = bits of the address in `reg` that choose the entry of a JumpMemory.
void emit_xor_of_address(Emitter& out, int reg, unsigned bits) {
  out.move(t1, reg);
  out.register_op(0xc1, 5, t1, true), out.u8(JumpMemory::index_shift);  // shr
  out.register_op(0x31, reg, t1, false);                                // xor
  out.and32(t1, (1u << bits) - 1);
}

// t1 = offset of a JumpMemory::Entry, in words.
void emit_entry_index(Emitter& out, int reg) {
  emit_xor_of_address(out, reg, JumpMemory::bits);
  out.lea(t1, {.base = t1, .index = t1, .scale = 2});
}

// RAX = the tag of entries in force, by the place of their generation.
void emit_tag(Emitter& out, size_t generation_offset, size_t mode) {
  out.load(rax, cpu_at(offsetof(Cpu, jump_memory) + generation_offset));
  out.register_op(0xc1, 4, rax, true), out.u8(JumpMemory::tag_shift);            // shl
  out.memory_op(0x0b, rax, cpu_at(offsetof(Cpu, jumps_mode) + 8 * mode), true);  // or
}

// The same by guest-physical address, for user code: T0 = linear target. Goes on with RAX, which is pushed, the code,
// and the jump memory knowing it by its linear address, too; returns the rel32 of the jump there.
size_t emit_physical_look_up(Emitter& out, const uint8_t* unknown) {
  const auto at_t1 = [](size_t offset, int scale) {
    return Address{.index = t1, .scale = scale, .disp = static_cast<int32_t>(offset), .cpu = true};
  };
  using Entry = JumpMemory::PhysicalEntry;
  static_assert(sizeof(Entry) == 16);
  constexpr size_t pages = offsetof(Cpu, code_pages);
  const size_t memory = offsetof(Cpu, jump_memory), mode = static_cast<size_t>(TlbMode::User);
  const size_t physical = memory + JumpMemory::physical_entries_offset(),
               linear = memory + JumpMemory::entries_offset();
  push(out, rax);
  push(out, rdx);
  out.stack_below_cpu(16);
  out.move(rax, t0);
  out.and_page(rax);
  out.register_op(0x89, t0, t1, false);
  out.shift_right32(t1, 7);
  out.and32(t1, (code_page_entries - 1) << 5);
  out.compare(rax, at_t1(pages + offsetof(CodePage, linear), 1));
  const size_t no_page = out.jump_if_later(5);
  out.byte_op(0x80, 7, at_t1(pages + offsetof(CodePage, user), 1), 1);  // cmp byte [t1 + user], 1
  const size_t no_user = out.jump_if_later(5);
  // (An entry by linear address is one PCID's.)
  out.byte_op(0x80, 7, at_t1(pages + offsetof(CodePage, global), 1), 0);  // cmp byte [t1 + global], 0
  const size_t global = out.jump_if_later(5);
  out.load(rax, at_t1(pages + offsetof(CodePage, gpa), 1));
  out.register_op(0x89, t0, t1, false);
  out.and32(t1, page_size - 1);
  out.register_op(0x09, t1, rax, true);  // or
  emit_xor_of_address(out, rax, JumpMemory::pair_bits);
  out.register_op(0xc1, 4, t1, false), out.u8(2);  // shl: a pair is four words
  out.load(rdx, cpu_at(offsetof(Cpu, jumps_mode) + 8 * mode));
  out.register_op(0xc1, 4, rdx, true), out.u8(JumpMemory::mode_shift);  // shl
  out.register_op(0x09, rdx, rax, true);                                // or
  out.load(rdx, at_t1(physical + offsetof(Entry, code), 8));
  out.compare(rax, at_t1(physical + offsetof(Entry, key), 8));
  const size_t first = out.jump_short_if_later(4);
  out.load(rdx, at_t1(physical + sizeof(Entry) + offsetof(Entry, code), 8));
  out.compare(rax, at_t1(physical + sizeof(Entry) + offsetof(Entry, key), 8));
  const size_t no_entry = out.jump_if_later(5);
  out.land8(first);
  emit_entry_index(out, t0);
  emit_tag(out, JumpMemory::generation_offset(true), mode);
  out.store(at_t1(linear + offsetof(JumpMemory::Entry, rip), 8), t0);
  out.store(at_t1(linear + offsetof(JumpMemory::Entry, tag), 8), rax);
  out.store(at_t1(linear + offsetof(JumpMemory::Entry, code), 8), rdx);
  out.move(rax, rdx);
  pop(out, rdx);
  const size_t found = out.jump_later();
  for (const size_t miss : {no_page, no_user, global, no_entry}) out.land(miss);
  pop(out, rdx);
  pop(out, rax);
  out.jump(unknown);
  return found;
}

// The look-up in Cpu::jump_memory, T0 = linear target: what it knows goes to Cpu::jumps and is jumped to.
void emit_jump_memory(Emitter& out, unsigned mode, const uint8_t* unknown) {
  static_assert(sizeof(JumpMemory::Entry) == 24);
  const bool user = static_cast<TlbMode>(mode) == TlbMode::User;
  const size_t memory = offsetof(Cpu, jump_memory);
  const size_t entries = memory + JumpMemory::entries_offset();
  const size_t table = offsetof(Cpu, jumps) + mode * sizeof(JumpCache);
  const auto at_t1 = [](size_t offset) {
    return Address{.index = t1, .scale = 8, .disp = static_cast<int32_t>(offset), .cpu = true};
  };
  emit_exit_request_test(out);
  out.jump_if(5, unknown);
  emit_entry_index(out, t0);
  out.compare(t0, at_t1(entries + offsetof(JumpMemory::Entry, rip)));
  const size_t other = out.jump_if_later(5);
  push(out, rax);
  out.stack_below_cpu(8);
  emit_tag(out, JumpMemory::generation_offset(user), mode);
  out.compare(rax, at_t1(entries + offsetof(JumpMemory::Entry, tag)));
  out.load(rax, at_t1(entries + offsetof(JumpMemory::Entry, code)));
  const size_t known = out.jump_if_later(4);
  pop(out, rax);  // (Where it is known RAX is still to be fetched.)
  out.land(other);
  size_t found = 0;
  if (user) {
    found = emit_physical_look_up(out, unknown);
  } else {
    out.jump(unknown);
  }
  out.stack_below_cpu(8);
  out.land(known);
  if (user) out.land(found);
  out.register_op(0x89, t0, t1, false);
  out.and32(t1, (jump_entries - 1) << 1);
  out.store(at_t1(table + offsetof(JumpCache::Entry, rip)), t0);
  out.store(at_t1(table + offsetof(JumpCache::Entry, code)), rax);
  if (user) {
    out.byte_op(0xc6, 0, cpu_at(offsetof(Cpu, jumps_local) + mode), 1);  // mov byte [jumps_local], 1
  }
  out.move(t1, rax);
  pop(out, rax);
  out.stack_below_cpu(0);
  out.u8(0x41), out.u8(0xff), out.u8(0xe0 | (t1 & 7));  // jmp t1
}

}  // namespace

void emit_exit_request_test(Emitter& out, bool wide) {
  out.u8(0x83);
  out.address(7, CPU_FIELD(exit_request), wide);
  out.u8(0);
}

size_t emit_jump_lookup(Emitter& out, unsigned mode) {
  static_assert(sizeof(JumpCache::Entry) == 16);
  const size_t table = offsetof(Cpu, jumps) + mode * sizeof(JumpCache);
  const auto field = [&](size_t offset) {
    return Address{.index = t1, .scale = 8, .disp = static_cast<int32_t>(table + offset), .cpu = true};
  };
  out.register_op(0x89, t0, t1, false);
  out.and32(t1, (jump_entries - 1) << 1);  // twice the index
  out.compare(t0, field(offsetof(JumpCache::Entry, rip)));
  const size_t miss = out.jump_if_later(5);
  out.memory_op(0xff, 4, field(offsetof(JumpCache::Entry, code)), false);  // jmp [t1*8 + code]
  return miss;
}

Result<Stubs> emit_stubs(CodeCache& cache) {
  constexpr size_t room = 8192;
  Emitter out(cache.write_position(), cache.run_position(), room);
  Stubs stubs;

  // --- enter -------------------------------------------------------------------------------------------------------
  stubs.enter = reinterpret_cast<void (*)(const uint8_t*, Cpu*)>(const_cast<uint8_t*>(begin(out)));
  for (const int reg : callee_saved) push(out, reg);
  out.move(t1, rdi);
  out.store({.base = rsi, .disp = static_cast<int32_t>(offsetof(Cpu, host_rsp))}, rsp);
  out.move(rsp, rsi);
  out.load(t0, CPU_FIELD(rip));
  for (unsigned i = 0; i < 16; ++i) {
    if (!spilled(i)) out.load(home_of(i), cpu_at(gpr_offset(i)));
  }
  out.u8(0x41), out.u8(0xff), out.u8(0xe0 | (t1 & 7));  // jmp t1

  // --- leave -------------------------------------------------------------------------------------------------------
  stubs.depart = begin(out);
  pop(out, t0);
  store_guest(out);
  save_flags(out, CPU_FIELD(leave_word));
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Depart));
  out.store(CPU_FIELD(leave_detail), t0);
  leave_tail(out);

  stubs.other_region = begin(out);
  out.stack_below_cpu(8);
  out.zero_extend_byte(t1);
  // cmp byte [t1 + mirror_valid], 0
  out.byte_op(0x80, 7, {.index = t1, .disp = static_cast<int32_t>(offsetof(Cpu, mirror_valid)), .cpu = true}, 0);
  const size_t nowhere = out.jump_short_if_later(4);
  out.load(t1, {.index = t1, .scale = 8, .disp = static_cast<int32_t>(offsetof(Cpu, mirror_addends)), .cpu = true});
  out.u8(0xc3);
  out.land8(nowhere);
  for (const unsigned byte : {0x48u, 0x83u, 0x04u, 0x24u, Stubs::other_region_jump})
    out.u8(byte);  // add qword [rsp], 5
  out.stack_below_cpu(0);
  out.jump(stubs.depart);

  stubs.leave_signal = begin(out);
  store_guest(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Signal));
  leave_tail(out);

  // --- fill --------------------------------------------------------------------------------------------------------
  stubs.fill = begin(out);
  out.stack_below_cpu(8);
  out.store32(CPU_FIELD(leave_word), t1);
  store_caller_saved(out);
  out.load(rdi, CPU_FIELD(self));
  out.move(rsi, t0);
  out.register_op(0x89, t1, rdx, false);
  adjust_stack(out, -8);
  call_function(out, reinterpret_cast<const void*>(&fill_from_code));
  adjust_stack(out, 8);
  out.register_op(0x85, rdx, rdx, false);  // test edx, edx
  const size_t slow = out.jump_if_later(4);
  out.move(t1, rax);
  load_caller_saved(out);
  out.u8(0xc3);
  out.land(slow);
  load_caller_saved(out);
  pop(out, t0);
  out.stack_below_cpu(0);
  out.store(CPU_FIELD(leave_detail), t0);
  store_guest(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Slow));
  leave_tail(out);

  // --- fill_window, fpu, string ------------------------------------------------------------------------------------
  stubs.fill_window = begin(out);
  out.stack_below_cpu(8);
  call_keeping_guest(
      out, reinterpret_cast<const void*>(&fill_window_from_code),
      [&] { out.move(rsi, t0), out.register_op(0x89, t1, rdx, false); }, [&] { out.move(t1, rax), out.move(t0, rdx); });
  out.register_op(0x85, t0, t0, false);  // test t0d, t0d
  out.u8(0xc3);

  stubs.fpu = begin(out);
  const auto nothing = [] {};
  call_keeping_guest(out, reinterpret_cast<const void*>(&bring_fpu_back_from_code), nothing, nothing);
  out.u8(0xc3);

  stubs.string = begin(out);
  call_keeping_guest(
      out, reinterpret_cast<const void*>(&string_from_code), [&] { out.register_op(0x89, t1, rsi, false); },
      [&] { out.move(t1, rax); });
  out.u8(0xc3);

  // --- indirect branches -------------------------------------------------------------------------------------------
  const uint8_t* unknown = begin(out);
  out.stack_below_cpu(0);
  out.store(CPU_FIELD(rip), t0);
  store_guest(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Lookup));
  leave_tail(out);

  stubs.lookup_stale = begin(out);
  out.store(CPU_FIELD(rip), t0);
  store_guest(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Dispatch));
  out.store_immediate(CPU_FIELD(leave_detail), slot_stale);
  leave_tail(out);

  for (unsigned mode = 0; mode < 3; ++mode) {
    stubs.lookup[mode] = begin(out);
    emit_exit_request_test(out);
    const size_t request = out.jump_if_later(5);
    const size_t miss = emit_jump_lookup(out, mode);
    stubs.lookup_miss[mode] = begin(out);
    pop(out, t1);
    out.store(CPU_FIELD(leave_detail), t1);
    const size_t indirect = out.jump_short_later();
    out.land(miss);
    out.land(request);
    out.store_immediate(CPU_FIELD(leave_detail), 0);
    out.land8(indirect);
    emit_jump_memory(out, mode, unknown);
  }

  stubs.restore_flags = begin(out);
  out.stack_below_cpu(8);
  out.move(t1, rax);
  restore_flags(out);
  out.move(rax, t1);
  out.u8(0xc3);

  CAISSON_CHECK(out.size() < room);
  cache.advance(out.size());
  return stubs;
}

}  // namespace caisson::jit
