// The fixed pieces of code that translated blocks call and leave through, and the host-signal handlers for faults in
// translated code.
//   Threads  emit_stubs() once per cache; install_fault_handlers() once per process; enter_guest() on vCPU threads
#pragma once

#include <cstdint>

#include "base/result.h"
#include "jit/cache/code_cache.h"
#include "jit/cpu.h"

namespace caisson::jit {

class Emitter;

// Why translated code was left: Cpu::leave when `enter` returns.
enum class Leave : uint32_t {
  Dispatch = 0,   // to the block at RIP; Cpu::leave_detail is the jump slot to chain (see slot bits), or 0
  Interpret = 1,  // the instruction at RIP is for the interpreter
  Slow =
      2,  // memory access for the interpreter: leave_detail is an address in the block's code, leave_word its FillWord
  Signal = 3,  // host fault at the executable address leave_detail; host flags in leave_word
  System = 4,  // the instruction at RIP is for run_system(); leave_word is its system word
  Depart = 5,  // one of the above: what it is, and RIP, stand at the executable address leave_detail (departure.h);
               // EFLAGS' status flags in leave_word, as in Cpu::flags_ax
  Lookup = 6,  // to the block at RIP; leave_detail is the executable address of the IndirectBranch, or 0
};

// What run_system() is told.
namespace system_word {
inline constexpr uint32_t kind_mask = 7, syscall = 0, sysret = 1, read_base = 2, write_base = 3;
inline constexpr uint32_t gs = 1u << 3, wide = 1u << 4;  // which segment's base; operand size of 64 bits
inline constexpr unsigned register_shift = 8, length_shift = 16;
}  // namespace system_word

// A jump slot is the executable address of a rel32 that can be patched; the highest bit says that it leads out of its
// page.
inline constexpr uint64_t slot_cross_page = uint64_t{1} << 63;
// And the next that its target must be translated with careful checks.
inline constexpr uint64_t slot_careful = uint64_t{1} << 62;
inline constexpr uint64_t slot_address = ~(slot_cross_page | slot_careful);
// In place of a slot: the block entered was dead or suspended.
inline constexpr uint64_t slot_stale = 2;

// What the fill stub is told in T1D.
namespace fill_word {
inline constexpr uint32_t size_mask = 0xff;  // bytes of the access
inline constexpr uint32_t write = 1u << 8;
inline constexpr uint32_t flags_in_memory = 1u << 9;
inline constexpr unsigned guest_offset_shift = 16;  // of the instruction in its block
// The window stub is told sizes up to 65535, and this.
inline constexpr uint32_t window_write = 1u << 16, window_stack = 1u << 17;  // the latter: becomes the stack's page
}  // namespace fill_word

// What the string stub is told in T1D.
namespace string_word {
inline constexpr uint32_t size_mask = 15, move = 16, narrow = 32;  // the latter: registers of 32 bits
}

struct Stubs {
  // Loads the guest's registers and jumps to a block's start; returns when the guest leaves.
  void (*enter)(const uint8_t* code, Cpu* cpu) = nullptr;
  const uint8_t* depart = nullptr;  // called, with a Departure behind the call; does not return
  // Called, with a jump of other_region_jump bytes and a Departure behind the call. T1's low byte = bits 40 to 47 of a
  // linear address: returns with T1 = the addend of that mirrored region, or leaves where there is none. Uses the
  // flags.
  const uint8_t* other_region = nullptr;
  static constexpr unsigned other_region_jump = 5;
  const uint8_t* leave_signal = nullptr;  // leave_detail and leave_word are set
  const uint8_t* fill = nullptr;  // T0 = linear address, T1D = fill word: returns with T1 = addend, or leaves as Slow
  // The same for a window: returns with ZF = 0 and T1 = addend, or with ZF = 1.
  const uint8_t* fill_window = nullptr;
  const uint8_t* fpu = nullptr;     // brings the FPU state back; keeps everything but T0, T1 and the flags
  const uint8_t* string = nullptr;  // T1D = StringWord: returns with T1 = 1, or 0 where the interpreter goes on
  // By TlbMode; called, with an IndirectBranch behind the call. T0 = linear target, which Cpu::jumps does not know, or
  // somebody wants the vCPU to leave; the status flags are in Cpu::flags_ax: goes to what Cpu::jump_memory knows, or
  // sets RIP and leaves. Never returns.
  const uint8_t* lookup_miss[3] = {};
  // By TlbMode; jumped to, for direct branches. The same T0 and flags; looks into Cpu::jumps, too.
  const uint8_t* lookup[3] = {};
  const uint8_t* lookup_stale = nullptr;   // the same for a dead or suspended block, from its start
  const uint8_t* restore_flags = nullptr;  // called: status flags from Cpu::flags_ax to EFLAGS; uses T1
};

// cmp dword [exit_request], 0; `wide`: with a displacement of 32 bits, as a block's first instruction must be.
void emit_exit_request_test(Emitter& out, bool wide = false);
// The look-up in Cpu::jumps of the mode, T0 = linear target, and the jump. Returns the rel32 of the jump to where it
// goes on with what it does not find.
[[nodiscard]] size_t emit_jump_lookup(Emitter& out, unsigned mode);

[[nodiscard]] Result<Stubs> emit_stubs(CodeCache& cache);

// SIGSEGV, SIGBUS, SIGFPE and SIGILL in this cache's code become Leave::Signal. Others go to the former handler.
void install_fault_handlers(const CodeCache& cache, const Stubs& stubs);
void forget_fault_handlers(const CodeCache& cache);
// The one that this thread runs.
void set_current_cpu(Cpu& cpu);

}  // namespace caisson::jit
