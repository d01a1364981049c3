// What one instruction's handler sees, and the table that finds the handler.
//   Threads  a Step lives on its vCPU's thread; the table is immutable once built
#pragma once

#include <Zydis/Mnemonic.h>

#include <array>
#include <cstdint>

#include "jit/cpu.h"
#include "jit/decode/instruction.h"

namespace caisson::jit {

struct Step {
  Cpu& cpu;
  const Instruction& in;
  uint64_t next = 0;          // RIP of the next instruction; control transfers change it
  bool watch = false;         // data accesses take the slow checks: alignment (#AC), data breakpoints
  uint32_t breakpoints = 0;   // DR6.B0-3 of data and I/O breakpoints that this instruction hit
  bool unfinished = false;    // a REP instruction stays at its RIP, to go on in the next step
  bool halted = false;        // HLT
  bool inhibit_trap = false;  // no single-step trap after this instruction (interrupt delivery, MOV SS)
  bool not_alone = false;     // it has to be done again with Cpu::alone

  // For a handler to return.
  [[nodiscard]] bool needs_alone() {
    not_alone = true;
    return false;
  }
};

// Executes one instruction. True: retired (the caller sets RIP to step.next). False: cpu.fault is raised or `not_alone`
// is set, nothing changed.
using Handler = bool (*)(Step&);

class HandlerTable {
 public:
  void set(ZydisMnemonic mnemonic, Handler handler) { rows_[mnemonic].fill(handler); }

  // `choose` is a templated lambda: []<class T>() -> Handler { return handler<T>; }, T the effective operand size.
  template <class Choose>
  void sized(ZydisMnemonic mnemonic, Choose choose) {
    rows_[mnemonic] = {choose.template operator()<uint8_t>(), choose.template operator()<uint16_t>(),
                       choose.template operator()<uint32_t>(), choose.template operator()<uint64_t>()};
  }
  template <class Choose>
  void sized(std::initializer_list<ZydisMnemonic> mnemonics, Choose choose) {
    for (const ZydisMnemonic mnemonic : mnemonics) sized(mnemonic, choose);
  }
  void set(std::initializer_list<ZydisMnemonic> mnemonics, Handler handler) {
    for (const ZydisMnemonic mnemonic : mnemonics) set(mnemonic, handler);
  }

  // Null where the interpreter has none (#UD, or a SIMD instruction: see simd.h).
  [[nodiscard]] Handler find(const Instruction& in) const {
    const unsigned size = in.operand_bits == 64 ? 3 : in.operand_bits == 32 ? 2 : in.operand_bits == 16 ? 1 : 0;
    return rows_[in.mnemonic][size];
  }

 private:
  std::array<std::array<Handler, 4>, ZYDIS_MNEMONIC_MAX_VALUE + 1> rows_{};
};

// Each file of handlers adds its own.
void add_alu(HandlerTable& table);
void add_moves(HandlerTable& table);
void add_atomics(HandlerTable& table);
void add_multiply(HandlerTable& table);
void add_decimal(HandlerTable& table);
void add_shifts(HandlerTable& table);
void add_bits(HandlerTable& table);
void add_strings(HandlerTable& table);
void add_stack(HandlerTable& table);
void add_branches(HandlerTable& table);
void add_interrupts(HandlerTable& table);
void add_segments(HandlerTable& table);
void add_control_registers(HandlerTable& table);
void add_msrs(HandlerTable& table);
void add_io(HandlerTable& table);
void add_syscalls(HandlerTable& table);
void add_system(HandlerTable& table);
void add_descriptor_tables(HandlerTable& table);
void add_fpu_state(HandlerTable& table);

}  // namespace caisson::jit
