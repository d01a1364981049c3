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
void save_flags(Emitter& out) {              // destroys RAX
  out.u8(0x9f);                              // lahf
  out.u8(0x0f), out.u8(0x90), out.u8(0xc0);  // seto al
  out.store32(CPU_FIELD(flags_ax), rax);
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
  adjust_stack(out, 8);
  for (size_t i = callee_saved.size(); i-- > 0;) pop(out, callee_saved[i]);
  out.u8(0xc3);
}

const uint8_t* begin(Emitter& out) {
  out.align(16, 0);
  return out.run_address();
}

// T0 = target. Flag-free: the comparison is an addition and JRCXZ.
const uint8_t* emit_lookup(Emitter& out, unsigned mode, const uint8_t* leave_dispatch) {
  const uint8_t* start = begin(out);
  const size_t table = offsetof(Cpu, jumps) + mode * sizeof(JumpCache);
  const auto tag = static_cast<int32_t>(table + offsetof(JumpCache, negative_rip));
  const auto code = static_cast<int32_t>(table + offsetof(JumpCache, code));
  out.store(cpu_at(offsetof(Cpu, scratch) + 8), rcx);
  if (__builtin_cpu_supports("bmi2")) {
    // pext t1, t0, gs:[jump_mask]
    out.u8(0x65);
    out.u8(0xc4), out.u8(0x62), out.u8(0x82 | (~t0 & 15) << 3), out.u8(0xf5);  // VEX.LZ.F3.0F38.W1 F5
    out.address(t1, CPU_FIELD(jump_mask));
  } else {
    out.u8(0x45), out.u8(0x0f), out.u8(0xb6), out.u8(0xc0 | (t1 & 7) << 3 | (t0 & 7));  // movzx t1d, t0b
  }
  out.load(rcx, {.index = t1, .scale = 8, .disp = tag, .gs = true});
  out.lea(rcx, {.base = rcx, .index = t0});
  const size_t equal = out.jump_rcx_zero_later();
  out.load(rcx, cpu_at(offsetof(Cpu, scratch) + 8));
  out.store(CPU_FIELD(rip), t0);
  out.move_immediate(t0, 0);
  out.jump(leave_dispatch);
  out.land8(equal);
  out.load32(rcx, CPU_FIELD(exit_request));
  const size_t hit = out.jump_rcx_zero_later();
  out.load(rcx, cpu_at(offsetof(Cpu, scratch) + 8));
  out.store(CPU_FIELD(rip), t0);
  out.move_immediate(t0, 0);
  out.jump(leave_dispatch);
  out.land8(hit);
  out.load(rcx, cpu_at(offsetof(Cpu, scratch) + 8));
  // jmp gs:[t1*8 + code]
  out.u8(0x65), out.u8(0x42), out.u8(0xff);
  out.address(4, {.index = t1, .scale = 8, .disp = code});
  return start;
}

}  // namespace

Result<Stubs> emit_stubs(CodeCache& cache) {
  constexpr size_t room = 8192;
  Emitter out(cache.write_position(), cache.run_position(), room);
  Stubs stubs;

  // --- enter -------------------------------------------------------------------------------------------------------
  stubs.enter = reinterpret_cast<void (*)(const uint8_t*)>(const_cast<uint8_t*>(begin(out)));
  for (const int reg : callee_saved) push(out, reg);
  adjust_stack(out, -8);
  out.move(t0, rdi);
  restore_flags(out);
  for (unsigned i = 0; i < 16; ++i) {
    if (!spilled(i)) out.load(home_of(i), cpu_at(gpr_offset(i)));
  }
  out.u8(0x41), out.u8(0xff), out.u8(0xe0 | (t0 & 7));  // jmp t0

  // --- leave -------------------------------------------------------------------------------------------------------
  stubs.leave_dispatch = begin(out);
  store_guest(out);
  save_flags(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Dispatch));
  out.store(CPU_FIELD(leave_detail), t0);
  leave_tail(out);

  stubs.leave_interpret = begin(out);
  store_guest(out);
  save_flags(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Interpret));
  leave_tail(out);

  stubs.leave_system = begin(out);
  store_guest(out);
  save_flags(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::System));
  out.store32(CPU_FIELD(leave_word), t0);
  leave_tail(out);

  stubs.leave_signal = begin(out);
  store_guest(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Signal));
  leave_tail(out);

  // --- fill --------------------------------------------------------------------------------------------------------
  stubs.fill = begin(out);
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
  out.store(CPU_FIELD(leave_detail), t0);
  store_guest(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Slow));
  leave_tail(out);

  // --- fill_window, fpu, string ------------------------------------------------------------------------------------
  stubs.fill_window = begin(out);
  call_keeping_guest(
      out, reinterpret_cast<const void*>(&fill_window_from_code),
      [&] { out.move(rsi, t0), out.register_op(0x89, t1, rdx, false); }, [&] { out.move(t1, rax), out.move(t0, rdx); });
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

  for (unsigned mode = 0; mode < 3; ++mode) stubs.lookup[mode] = emit_lookup(out, mode, stubs.leave_dispatch);
  CAISSON_CHECK(out.size() < room);
  cache.advance(out.size());
  return stubs;
}

}  // namespace caisson::jit
