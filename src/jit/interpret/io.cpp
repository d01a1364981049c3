// IN, OUT, INS, OUTS.
//   Source   Intel SDM vol. 1, 19.5 (I/O privilege, permission bit map)
#include "jit/interpret/breakpoints.h"
#include "jit/interpret/privilege.h"
#include "jit/interpret/string.h"
#include "jit/profile.h"

namespace caisson::jit {
namespace {

using namespace x86;

// IOPL, else the bit map of the TSS: #GP(0).
bool check_port(Step& step, uint16_t port, unsigned size) {
  Cpu& cpu = step.cpu;
  if (step.watch) step.breakpoints |= breakpoint_hits(cpu, port, size, BreakOn::Port);
  if (!(cpu.cr0 & cr0::pe) || (!virtual_8086(cpu) && cpu.cpl <= iopl(cpu))) return true;
  if (!(cpu.tr.type() & 8) || cpu.tr.limit < 0x67) return raise(cpu, Gp, 0);
  uint16_t map, bits;
  if (!mmu::read(cpu, cpu.tr.base + 0x66, map, As::System)) return false;
  const uint32_t at = map + port / 8u;
  if (at + 1 > cpu.tr.limit) return raise(cpu, Gp, 0);
  if (!mmu::read(cpu, cpu.tr.base + at, bits, As::System)) return false;
  return !(bits >> (port & 7) & ((1u << size) - 1)) || raise(cpu, Gp, 0);
}

uint16_t port_of(const Step& step, const Operand& operand) {
  return static_cast<uint16_t>(operand.kind == Operand::Kind::Register ? step.cpu.gpr[Rdx] : operand.immediate);
}

bool in(Step& step) {
  Cpu& cpu = step.cpu;
  const unsigned size = step.in.operands[0].bits / 8;
  const uint16_t port = port_of(step, step.in.operands[1]);
  if (!check_port(step, port, size)) return false;
  const ProfileScope profiled(cpu, Doing::Devices);
  const uint64_t value = cpu.bus->read(Space::Port, port, size);
  if (size == 1) {
    set_gpr(cpu, Rax, static_cast<uint8_t>(value));
  } else if (size == 2) {
    set_gpr(cpu, Rax, static_cast<uint16_t>(value));
  } else {
    set_gpr(cpu, Rax, static_cast<uint32_t>(value));
  }
  return true;
}

bool out(Step& step) {
  Cpu& cpu = step.cpu;
  const unsigned size = step.in.operands[1].bits / 8;
  const uint16_t port = port_of(step, step.in.operands[0]);
  if (!check_port(step, port, size)) return false;
  const ProfileScope profiled(cpu, Doing::Devices);
  cpu.bus->write(Space::Port, port, size, truncate(cpu.gpr[Rax], size * 8));
  return true;
}

constexpr uint64_t elements_per_step = 256;

template <class T>
bool ins(Step& step) {
  Cpu& cpu = step.cpu;
  const uint16_t port = static_cast<uint16_t>(cpu.gpr[Rdx]);
  StringRegisters regs(step, sizeof(T));
  uint64_t left = regs.iterations(elements_per_step);
  if (left > 0 && !check_port(step, port, sizeof(T))) return false;
  for (; left > 0; --left) {
    uint64_t linear;
    // Memory first: a device must not lose data to a page fault.
    if (!linear_address(step, Es, regs.destination(), sizeof(T), true, linear)) return false;
    if (!mmu::probe(cpu, linear, sizeof(T), Access::Write)) return false;
    const T value = static_cast<T>(cpu.bus->read(Space::Port, port, sizeof(T)));
    if (!mmu::write(cpu, linear, value)) return false;
    regs.advance(1, false, true);
  }
  regs.finish(step);
  return true;
}

template <class T>
bool outs(Step& step) {
  Cpu& cpu = step.cpu;
  const uint16_t port = static_cast<uint16_t>(cpu.gpr[Rdx]);
  const unsigned segment = StringRegisters::source_segment(step);
  StringRegisters regs(step, sizeof(T));
  uint64_t left = regs.iterations(elements_per_step);
  if (left > 0 && !check_port(step, port, sizeof(T))) return false;
  for (; left > 0; --left) {
    uint64_t linear;
    T value;
    if (!linear_address(step, segment, regs.source(), sizeof(T), false, linear) || !mmu::read(cpu, linear, value))
      return false;
    cpu.bus->write(Space::Port, port, sizeof(T), value);
    regs.advance(1, true, false);
  }
  regs.finish(step);
  return true;
}

}  // namespace

void add_io(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_IN, in);
  table.set(ZYDIS_MNEMONIC_OUT, out);
  table.set(ZYDIS_MNEMONIC_INSB, ins<uint8_t>);
  table.set(ZYDIS_MNEMONIC_INSW, ins<uint16_t>);
  table.set(ZYDIS_MNEMONIC_INSD, ins<uint32_t>);
  table.set(ZYDIS_MNEMONIC_OUTSB, outs<uint8_t>);
  table.set(ZYDIS_MNEMONIC_OUTSW, outs<uint16_t>);
  table.set(ZYDIS_MNEMONIC_OUTSD, outs<uint32_t>);
}

}  // namespace caisson::jit
