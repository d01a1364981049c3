// BCD adjustment: AAA, AAS, AAD, AAM, DAA, DAS (not in 64-bit mode, where the decoder knows none of them).
//   Source   Intel SDM vol. 2
#include <bit>

#include "jit/interpret/flags.h"
#include "jit/interpret/operands.h"

namespace caisson::jit {
namespace {

namespace rf = x86::rflags;

CAISSON_NATIVE_BINARY(Add, "add")

void set_flags(Cpu& cpu, uint64_t mask, uint64_t value) { cpu.rflags = (cpu.rflags & ~mask) | (value & mask); }

uint64_t result_flags(uint8_t al) {
  return (al == 0 ? rf::zf : 0) | (al & 0x80 ? rf::sf : 0) | (std::popcount(al) & 1 ? 0 : rf::pf);
}

template <bool Subtract>
bool ascii_adjust(Step& step) {
  Cpu& cpu = step.cpu;
  uint16_t ax = static_cast<uint16_t>(cpu.gpr[x86::Rax]);
  const bool adjust = (ax & 15) > 9 || (cpu.rflags & rf::af);
  if (adjust) ax = static_cast<uint16_t>(Subtract ? ax - 0x106 : ax + 0x106);
  ax &= 0xff0f;
  set_gpr<uint16_t>(cpu, x86::Rax, ax);
  set_flags(cpu, rf::status, (adjust ? rf::af | rf::cf : 0) | result_flags(static_cast<uint8_t>(ax)));
  return true;
}

template <bool Subtract>
bool decimal_adjust(Step& step) {
  Cpu& cpu = step.cpu;
  const uint8_t old = static_cast<uint8_t>(cpu.gpr[x86::Rax]);
  const bool old_carry = cpu.rflags & rf::cf;
  uint8_t al = old;
  uint64_t flags = 0;
  if ((old & 15) > 9 || (cpu.rflags & rf::af)) {
    al = static_cast<uint8_t>(Subtract ? old - 6 : old + 6);
    flags |= rf::af;
    if (Subtract ? old < 6 : old > 0xf9) flags |= rf::cf;
    if (old_carry) flags |= rf::cf;
  }
  if (old > 0x99 || old_carry) {
    al = static_cast<uint8_t>(Subtract ? al - 0x60 : al + 0x60);
    flags |= rf::cf;
  } else if (!Subtract) {
    flags &= ~rf::cf;
  }
  set_gpr<uint8_t>(cpu, x86::Rax, al);
  set_flags(cpu, rf::status, flags | result_flags(al));
  return true;
}

bool aad(Step& step) {
  Cpu& cpu = step.cpu;
  const uint8_t base = static_cast<uint8_t>(step.in.operand_count ? step.in.operands[0].immediate : 10);
  const uint16_t ax = static_cast<uint16_t>(cpu.gpr[x86::Rax]);
  // CF, AF and OF (undefined) come from the addition, as on the CPUs seen.
  const uint8_t al = Add::run(static_cast<uint8_t>(ax), static_cast<uint8_t>((ax >> 8) * base), cpu.rflags);
  set_gpr<uint16_t>(cpu, x86::Rax, al);
  return true;
}

bool aam(Step& step) {
  Cpu& cpu = step.cpu;
  const uint8_t base = static_cast<uint8_t>(step.in.operand_count ? step.in.operands[0].immediate : 10);
  if (base == 0) return raise(cpu, x86::De);
  const uint8_t al = static_cast<uint8_t>(cpu.gpr[x86::Rax]);
  const uint8_t rest = al % base;
  set_gpr<uint16_t>(cpu, x86::Rax, static_cast<uint16_t>((al / base) << 8 | rest));
  set_flags(cpu, rf::status, result_flags(rest));
  return true;
}

}  // namespace

void add_decimal(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_AAA, ascii_adjust<false>);
  table.set(ZYDIS_MNEMONIC_AAS, ascii_adjust<true>);
  table.set(ZYDIS_MNEMONIC_DAA, decimal_adjust<false>);
  table.set(ZYDIS_MNEMONIC_DAS, decimal_adjust<true>);
  table.set(ZYDIS_MNEMONIC_AAD, aad);
  table.set(ZYDIS_MNEMONIC_AAM, aam);
}

}  // namespace caisson::jit
