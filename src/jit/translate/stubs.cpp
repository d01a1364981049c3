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

// Guest register → the host register it lives in; R13-R15 stay in memory.
constexpr int home(unsigned guest) { return guest == 4 ? int{r13} : static_cast<int>(guest); }
constexpr unsigned mapped_registers = 13;

constexpr std::array callee_saved{rbx, rbp, r12, r13, r14, r15};
// What C++ functions may destroy and the guest lives in.
constexpr std::array caller_saved{rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11};

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
  for (unsigned i = 0; i < mapped_registers; ++i) out.store(cpu_at(gpr_offset(i)), home(i));
}

// Calls a C++ function with the Cpu as first argument; the guest's registers are kept, R14 and R15 are not. `arguments`
// moves from R14 and R15 to where the function wants them, `results` back.
template <class Arguments, class Results>
void call_keeping_guest(Emitter& out, const void* function, Arguments arguments, Results results) {
  for (const int reg : caller_saved) out.store(cpu_at(gpr_offset(static_cast<unsigned>(reg))), reg);
  out.load(rdi, CPU_FIELD(self));
  arguments();
  adjust_stack(out, -8);
  call_function(out, function);
  adjust_stack(out, 8);
  results();
  for (const int reg : caller_saved) out.load(reg, cpu_at(gpr_offset(static_cast<unsigned>(reg))));
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

// R14 = target. Flag-free: the comparison is an addition and JRCXZ.
const uint8_t* emit_lookup(Emitter& out, unsigned mode, const uint8_t* leave_dispatch) {
  const uint8_t* start = begin(out);
  const size_t table = offsetof(Cpu, jumps) + mode * sizeof(JumpCache);
  const auto tag = static_cast<int32_t>(table + offsetof(JumpCache, negative_rip));
  const auto code = static_cast<int32_t>(table + offsetof(JumpCache, code));
  out.store(cpu_at(offsetof(Cpu, scratch) + 8), rcx);
  if (__builtin_cpu_supports("bmi2")) {
    // pext r15, r14, gs:[jump_mask]
    out.u8(0x65);
    out.u8(0xc4), out.u8(0x62), out.u8(0x8a), out.u8(0xf5);  // VEX.LZ.F3.0F38.W1 F5
    out.address(r15, CPU_FIELD(jump_mask));
  } else {
    out.u8(0x45), out.u8(0x0f), out.u8(0xb6), out.u8(0xfe);  // movzx r15d, r14b
  }
  out.load(rcx, {.index = r15, .scale = 8, .disp = tag, .gs = true});
  out.lea(rcx, {.base = rcx, .index = r14});
  const size_t equal = out.jump_rcx_zero_later();
  out.load(rcx, cpu_at(offsetof(Cpu, scratch) + 8));
  out.store(CPU_FIELD(rip), r14);
  out.move_immediate(r14, 0);
  out.jump(leave_dispatch);
  out.land8(equal);
  out.load32(rcx, CPU_FIELD(exit_request));
  const size_t hit = out.jump_rcx_zero_later();
  out.load(rcx, cpu_at(offsetof(Cpu, scratch) + 8));
  out.store(CPU_FIELD(rip), r14);
  out.move_immediate(r14, 0);
  out.jump(leave_dispatch);
  out.land8(hit);
  out.load(rcx, cpu_at(offsetof(Cpu, scratch) + 8));
  // jmp gs:[r15*8 + code]
  out.u8(0x65), out.u8(0x42), out.u8(0xff);
  out.address(4, {.index = r15, .scale = 8, .disp = code});
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
  out.move(r14, rdi);
  restore_flags(out);
  for (unsigned i = 0; i < mapped_registers; ++i) out.load(home(i), cpu_at(gpr_offset(i)));
  out.u8(0x41), out.u8(0xff), out.u8(0xe6);  // jmp r14

  // --- leave -------------------------------------------------------------------------------------------------------
  stubs.leave_dispatch = begin(out);
  store_guest(out);
  save_flags(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Dispatch));
  out.store(CPU_FIELD(leave_detail), r14);
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
  out.store32(CPU_FIELD(leave_word), r14);
  leave_tail(out);

  stubs.leave_signal = begin(out);
  store_guest(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Signal));
  leave_tail(out);

  // --- fill --------------------------------------------------------------------------------------------------------
  stubs.fill = begin(out);
  for (const int reg : caller_saved) out.store(cpu_at(gpr_offset(static_cast<unsigned>(reg))), reg);
  out.load(rdi, CPU_FIELD(self));
  out.move(rsi, r14);
  out.register_op(0x89, r15, rdx, false);
  adjust_stack(out, -8);
  call_function(out, reinterpret_cast<const void*>(&fill_from_code));
  adjust_stack(out, 8);
  out.register_op(0x85, rdx, rdx, false);  // test edx, edx
  const size_t slow = out.jump_if_later(4);
  out.move(r15, rax);
  for (const int reg : caller_saved) out.load(reg, cpu_at(gpr_offset(static_cast<unsigned>(reg))));
  out.u8(0xc3);
  out.land(slow);
  for (const int reg : caller_saved) out.load(reg, cpu_at(gpr_offset(static_cast<unsigned>(reg))));
  pop(out, r14);
  out.store(CPU_FIELD(leave_detail), r14);
  out.store32(CPU_FIELD(leave_word), r15);
  store_guest(out);
  out.store32_immediate(CPU_FIELD(leave), static_cast<int32_t>(Leave::Slow));
  leave_tail(out);

  // --- fill_window, fpu, string ------------------------------------------------------------------------------------
  stubs.fill_window = begin(out);
  call_keeping_guest(
      out, reinterpret_cast<const void*>(&fill_window_from_code),
      [&] { out.move(rsi, r14), out.register_op(0x89, r15, rdx, false); },
      [&] { out.move(r15, rax), out.move(r14, rdx); });
  out.u8(0xc3);

  stubs.fpu = begin(out);
  const auto nothing = [] {};
  call_keeping_guest(out, reinterpret_cast<const void*>(&bring_fpu_back_from_code), nothing, nothing);
  out.u8(0xc3);

  stubs.string = begin(out);
  call_keeping_guest(
      out, reinterpret_cast<const void*>(&string_from_code), [&] { out.register_op(0x89, r15, rsi, false); },
      [&] { out.move(r15, rax); });
  out.u8(0xc3);

  for (unsigned mode = 0; mode < 3; ++mode) stubs.lookup[mode] = emit_lookup(out, mode, stubs.leave_dispatch);
  CAISSON_CHECK(out.size() < room);
  cache.advance(out.size());
  return stubs;
}

}  // namespace caisson::jit
