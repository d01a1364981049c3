// What the translator does with an instruction, and which status flags live across it.
//   Threads  none of its own
#pragma once

#include <cstdint>

#include "jit/cache/code_cache.h"
#include "jit/decode/instruction.h"

namespace caisson::jit {

enum class Kind : uint8_t {
  Native,   // runs as it is, operands rewritten
  Nothing,  // hint: no code
  PushReg,
  PushImmediate,
  PushMemory,
  PopReg,
  Leave,
  ClearInterrupts,
  SetInterrupts,
  PushFlags,
  ReadTime,
  BitTest,
  String,  // MOVS and STOS, with and without REP
  SwapGs,
  ClearDirection,
  // the rest ends a block
  Jump,
  JumpIf,
  JumpRcx,
  Call,
  JumpIndirect,
  CallIndirect,
  Return,
  AccessCheckFlag,  // STAC and CLAC: what follows runs in another mode
  System,           // changes the mode in ways that run_system() knows
  Interpret,        // the interpreter does it
};

[[nodiscard]] constexpr bool ends_block(Kind kind) { return kind >= Kind::Jump; }

// Bits of the mode word; the rest is in mode_word().
namespace mode_bits {
inline constexpr ModeWord tlb_mask = 3, code_32 = 4, fpu_ok = 8, sse_ok = 16, avx_ok = 32, avx512_ok = 64, cpl_0 = 128,
                          tsd = 256, smap = 512,
                          careful = 1024,  // every access is checked by itself, see windows.cpp
    mirror = 2048,                         // user code whose address space is mirrored, see mmu/mirror.h
    mirror_upper = 4096;                   // and GS leads to its upper half
}

[[nodiscard]] Kind classify(const Instruction& in, ModeWord mode);

// What --jit-off takes away: classes of instructions, which the interpreter does then, and optimisations.
namespace off {
inline constexpr uint32_t integer = 1, x87 = 2, sse = 4, avx = 8, string = 16, atomic = 32, branch = 64, system = 128,
                          windows = 256,  // accesses checked together
    flags = 512,                          // status flags not kept where nobody reads them
    chain = 1024,                         // blocks that lead on without the dispatcher
    conditional = 2048,                   // blocks that go on behind a conditional jump
    unrepeatable = 4096,                  // RDTSC and PUSHF: lock-step runs them once
    seldom = 8192,                        // interpreting what runs for the first or second time
    mirror = 16384,                       // mirrors of address spaces
    patience = 32768,                     // waiting until an address space is worth a mirror, or direct execution
    direct = 65536;                       // direct execution of user code
inline constexpr uint32_t simd = x87 | sse | avx;
inline constexpr uint32_t instructions = integer | simd | string | atomic | branch | system;
}  // namespace off

// By its prefix, or by itself: XCHG with memory.
[[nodiscard]] bool is_locked(const Instruction& in);
// Whether `off` leaves the instruction, which is of this kind, to the interpreter.
[[nodiscard]] bool left_to_interpreter(const Instruction& in, Kind kind, uint32_t off);

struct FlagUse {
  uint32_t reads = 0;       // status flags it reads
  uint32_t overwrites = 0;  // status flags it surely writes or leaves undefined
  bool touches = false;     // writes any
};
[[nodiscard]] FlagUse flag_use(const Instruction& in);

inline constexpr uint32_t all_status_flags = 0x8d5;

}  // namespace caisson::jit
