// LGDT, LIDT, SGDT, SIDT, LLDT, SLDT, LTR, STR.
//   Source   Intel SDM vol. 2
#include "jit/interpret/operands.h"
#include "jit/interpret/privilege.h"
#include "jit/interpret/segments.h"

namespace caisson::jit {
namespace {

using namespace x86;

bool user_mode_prevented(Cpu& cpu) { return cpu.cpl > 0 && (cpu.cr4 & cr4::umip); }

template <DescriptorTable Cpu::*Table>
bool load_table(Step& step) {
  Cpu& cpu = step.cpu;
  if (!require_cpl0(cpu)) return false;
  const unsigned size = cpu.code_bits == 64 ? 10 : 6;
  uint64_t linear;
  std::array<uint8_t, 10> bytes{};
  if (!operand_address(step, step.in.operands[0], size, false, linear) ||
      !mmu::read_bytes(cpu, linear, bytes.data(), size)) {
    return false;
  }
  DescriptorTable table;
  std::memcpy(&table.limit, bytes.data(), 2);
  std::memcpy(&table.base, bytes.data() + 2, size - 2);
  if (cpu.code_bits == 64) {
    if (!canonical(table.base)) return raise(cpu, Gp, 0);
  } else if (step.in.operand_bits == 16) {
    table.base &= 0xff'ffff;
  }
  cpu.*Table = table;
  return true;
}

template <DescriptorTable Cpu::*Table>
bool store_table(Step& step) {
  Cpu& cpu = step.cpu;
  if (user_mode_prevented(cpu)) return raise(cpu, Gp, 0);
  const unsigned size = cpu.code_bits == 64 ? 10 : 6;
  const DescriptorTable& table = cpu.*Table;
  std::array<uint8_t, 10> bytes{};
  std::memcpy(bytes.data(), &table.limit, 2);
  std::memcpy(bytes.data() + 2, &table.base, size - 2);
  uint64_t linear;
  return operand_address(step, step.in.operands[0], size, true, linear) &&
         mmu::write_bytes(cpu, linear, bytes.data(), size);
}

template <Segment Cpu::*Register>
bool store_selector(Step& step) {
  Cpu& cpu = step.cpu;
  if (!protected_mode(cpu)) return raise(cpu, Ud);
  if (user_mode_prevented(cpu)) return raise(cpu, Gp, 0);
  const uint16_t selector = (cpu.*Register).selector;
  const Operand& destination = step.in.operands[0];
  if (destination.kind == Operand::Kind::Memory || step.in.operand_bits == 16) return put(step, destination, selector);
  cpu.gpr[destination.reg] = selector;
  return true;
}

bool lldt(Step& step) {
  Cpu& cpu = step.cpu;
  if (!protected_mode(cpu)) return raise(cpu, Ud);
  if (!require_cpl0(cpu)) return false;
  uint16_t selector;
  if (!get(step, step.in.operands[0], selector)) return false;
  if (null_selector(selector)) {
    cpu.ldtr = null_segment(selector);
    return true;
  }
  if (selector & 4) return raise(cpu, Gp, selector_error(selector));
  Descriptor descriptor;
  if (!read_system_descriptor(cpu, selector, descriptor)) return false;
  if (descriptor.code_or_data() || descriptor.type() != Ldt) return raise(cpu, Gp, selector_error(selector));
  if (!descriptor.present()) return raise(cpu, Np, selector_error(selector));
  if (cpu.long_mode && !canonical(descriptor.base())) return raise(cpu, Gp, selector_error(selector));
  cpu.ldtr = descriptor.segment(selector);
  return true;
}

bool ltr(Step& step) {
  Cpu& cpu = step.cpu;
  if (!protected_mode(cpu)) return raise(cpu, Ud);
  if (!require_cpl0(cpu)) return false;
  uint16_t selector;
  if (!get(step, step.in.operands[0], selector)) return false;
  if (null_selector(selector)) return raise(cpu, Gp, 0);
  if (selector & 4) return raise(cpu, Gp, selector_error(selector));
  Descriptor descriptor;
  if (!read_system_descriptor(cpu, selector, descriptor)) return false;
  const bool available =
      !descriptor.code_or_data() && (descriptor.type() == Tss32 || (descriptor.type() == Tss16 && !cpu.long_mode));
  if (!available) return raise(cpu, Gp, selector_error(selector));
  if (!descriptor.present()) return raise(cpu, Np, selector_error(selector));
  if (cpu.long_mode && !canonical(descriptor.base())) return raise(cpu, Gp, selector_error(selector));
  if (!set_busy(cpu, descriptor, true)) return false;
  cpu.tr = descriptor.segment(selector);
  return true;
}

}  // namespace

void add_descriptor_tables(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_LGDT, load_table<&Cpu::gdtr>);
  table.set(ZYDIS_MNEMONIC_LIDT, load_table<&Cpu::idtr>);
  table.set(ZYDIS_MNEMONIC_SGDT, store_table<&Cpu::gdtr>);
  table.set(ZYDIS_MNEMONIC_SIDT, store_table<&Cpu::idtr>);
  table.set(ZYDIS_MNEMONIC_SLDT, store_selector<&Cpu::ldtr>);
  table.set(ZYDIS_MNEMONIC_STR, store_selector<&Cpu::tr>);
  table.set(ZYDIS_MNEMONIC_LLDT, lldt);
  table.set(ZYDIS_MNEMONIC_LTR, ltr);
}

}  // namespace caisson::jit
