// Near control transfers: JMP, Jcc, JCXZ, LOOP, CALL, RET.
//   Source   Intel SDM vol. 2; in 64-bit mode near branches are 64 bits wide whatever the operand-size prefix says
#include "jit/interpret/far_transfer.h"
#include "jit/interpret/interpreter.h"
#include "jit/interpret/stack.h"

namespace caisson::jit {
namespace {

// Sets the target after checking that instructions can be fetched there: #GP(0).
bool branch(Step& step, uint64_t target) {
  Cpu& cpu = step.cpu;
  if (cpu.code_bits == 64) {
    if (!canonical(target)) return raise(cpu, x86::Gp, 0);
  } else {
    target = truncate(target, step.in.operand_bits == 16 ? 16 : 32);
    if (target > cpu.segments[x86::Cs].limit) return raise(cpu, x86::Gp, 0);
  }
  step.next = target;
  return true;
}

bool branch_relative(Step& step) { return branch(step, step.next + step.in.operands[0].immediate); }

bool near_target(Step& step, uint64_t& target) {
  const Operand& operand = step.in.operands[0];
  if (operand.kind == Operand::Kind::Relative) {
    target = step.next + operand.immediate;
    return true;
  }
  if (step.in.operand_bits == 64) return get<uint64_t>(step, operand, target);
  if (step.in.operand_bits == 32) {
    uint32_t value;
    if (!get(step, operand, value)) return false;
    target = value;
    return true;
  }
  uint16_t value;
  if (!get(step, operand, value)) return false;
  target = value;
  return true;
}

bool jmp(Step& step) {
  if (step.in.far_branch) return far_jump(step);
  uint64_t target;
  return near_target(step, target) && branch(step, target);
}

bool call(Step& step) {
  if (step.in.far_branch) return far_call(step);
  const uint64_t back = step.next;
  uint64_t target;
  if (!near_target(step, target) || !branch(step, target)) return false;
  Stack stack(step);
  if (!stack.push(back, step.in.operand_bits)) return false;
  stack.commit();
  return true;
}

bool ret(Step& step) {
  if (step.in.far_branch) return far_return(step);
  Stack stack(step);
  uint64_t target;
  if (!stack.pop(target, step.in.operand_bits) || !branch(step, target)) return false;
  if (step.in.operand_count > 0) stack.skip(step.in.operands[0].immediate & 0xffff);
  stack.commit();
  return true;
}

bool jcc(Step& step) { return !condition(step.in.opcode & 15, step.cpu.rflags) || branch_relative(step); }

uint64_t counter(const Step& step) { return truncate(step.cpu.gpr[x86::Rcx], step.in.address_bits); }

bool jcxz(Step& step) { return counter(step) != 0 || branch_relative(step); }

template <bool Conditional, bool Zero>
bool loop(Step& step) {
  Cpu& cpu = step.cpu;
  const uint64_t count = truncate(counter(step) - 1, step.in.address_bits);
  const bool zero = cpu.rflags & x86::rflags::zf;
  if (count != 0 && (!Conditional || zero == Zero) && !branch_relative(step)) return false;
  uint64_t& rcx = cpu.gpr[x86::Rcx];
  rcx = step.in.address_bits == 16 ? (rcx & ~uint64_t{0xffff}) | count : count;
  return true;
}

}  // namespace

void add_branches(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_JMP, jmp);
  table.set(ZYDIS_MNEMONIC_CALL, call);
  table.set(ZYDIS_MNEMONIC_RET, ret);
  table.set({ZYDIS_MNEMONIC_JB, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JLE, ZYDIS_MNEMONIC_JNB,
             ZYDIS_MNEMONIC_JNBE, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JNLE, ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JNP,
             ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JNZ, ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JP, ZYDIS_MNEMONIC_JS,
             ZYDIS_MNEMONIC_JZ},
            jcc);
  table.set({ZYDIS_MNEMONIC_JCXZ, ZYDIS_MNEMONIC_JECXZ, ZYDIS_MNEMONIC_JRCXZ}, jcxz);
  table.set(ZYDIS_MNEMONIC_LOOP, loop<false, false>);
  table.set(ZYDIS_MNEMONIC_LOOPE, loop<true, true>);
  table.set(ZYDIS_MNEMONIC_LOOPNE, loop<true, false>);
}

}  // namespace caisson::jit
