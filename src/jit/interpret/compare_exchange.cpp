// XCHG, XADD, CMPXCHG, CMPXCHG8B and CMPXCHG16B.
//   Source   Intel SDM vol. 2; vol. 3, 9.1.2 (XCHG with memory is always locked)
// CMPXCHG writes its memory operand in any case (the old value back where the comparison fails), so it needs write
// access.
#include "jit/interpret/flags.h"
#include "jit/interpret/operands.h"

namespace caisson::jit {
namespace {

CAISSON_NATIVE_BINARY(Add, "add")
CAISSON_NATIVE_BINARY(Cmp, "cmp")

template <class T>
bool xchg(Step& step) {
  const Operand& a = step.in.operands[0];
  const Operand& b = step.in.operands[1];
  if (a.kind == Operand::Kind::Register && b.kind == Operand::Kind::Register) {
    const T value = get_register<T>(step.cpu, a);
    set_register<T>(step.cpu, a, get_register<T>(step.cpu, b));
    set_register<T>(step.cpu, b, value);
    return true;
  }
  const Operand& memory = a.kind == Operand::Kind::Memory ? a : b;
  const Operand& reg = a.kind == Operand::Kind::Memory ? b : a;
  uint64_t linear;
  if (!operand_address(step, memory, sizeof(T), true, linear)) return false;
  const T fresh = get_register<T>(step.cpu, reg);
  T old{};
  if (!modify_linear<T>(step, linear, true, [&](T value, uint64_t&) {
        old = value;
        return fresh;
      })) {
    return false;
  }
  set_register<T>(step.cpu, reg, old);
  return true;
}

template <class T>
bool xadd(Step& step) {
  const Operand& source = step.in.operands[1];
  const T addend = get_register<T>(step.cpu, source);
  const Operand& destination = step.in.operands[0];
  if (destination.kind == Operand::Kind::Register) {
    const T old = get_register<T>(step.cpu, destination);
    const T sum = Add::run(old, addend, step.cpu.rflags);
    set_register<T>(step.cpu, source, old);
    set_register<T>(step.cpu, destination, sum);  // last: the two may be one register
    return true;
  }
  T old{};
  if (!modify<T>(step, destination, [&](T value, uint64_t& flags) {
        old = value;
        return Add::run(value, addend, flags);
      })) {
    return false;
  }
  set_register<T>(step.cpu, source, old);
  return true;
}

template <class T>
bool cmpxchg(Step& step) {
  Cpu& cpu = step.cpu;
  const Operand& destination = step.in.operands[0];
  const T expected = static_cast<T>(cpu.gpr[x86::Rax]);
  const T fresh = get_register<T>(cpu, step.in.operands[1]);
  T old{};
  if (destination.kind == Operand::Kind::Register) {
    old = get_register<T>(cpu, destination);
    Cmp::run(expected, old, cpu.rflags);
    if (old == expected) {
      set_register<T>(cpu, destination, fresh);
    } else {
      set_gpr<T>(cpu, x86::Rax, old);
    }
    return true;
  }
  if (!modify<T>(step, destination, [&](T value, uint64_t& flags) {
        old = value;
        Cmp::run(expected, value, flags);
        return value == expected ? fresh : value;
      })) {
    return false;
  }
  if (old != expected) set_gpr<T>(cpu, x86::Rax, old);
  return true;
}

void set_zf(Cpu& cpu, bool zf) { cpu.rflags = zf ? cpu.rflags | x86::rflags::zf : cpu.rflags & ~x86::rflags::zf; }

bool cmpxchg8b(Step& step) {
  Cpu& cpu = step.cpu;
  const auto pair = [&](unsigned high, unsigned low) { return cpu.gpr[high] << 32 | (cpu.gpr[low] & 0xffff'ffff); };
  const uint64_t expected = pair(x86::Rdx, x86::Rax);
  const uint64_t fresh = pair(x86::Rcx, x86::Rbx);
  uint64_t old = 0;
  if (!modify<uint64_t>(step, step.in.operands[0], [&](uint64_t value, uint64_t&) {
        old = value;
        return value == expected ? fresh : value;
      })) {
    return false;
  }
  set_zf(cpu, old == expected);
  if (old != expected) {
    set_gpr<uint32_t>(cpu, x86::Rax, static_cast<uint32_t>(old));
    set_gpr<uint32_t>(cpu, x86::Rdx, static_cast<uint32_t>(old >> 32));
  }
  return true;
}

bool cmpxchg16b(Step& step) {
  Cpu& cpu = step.cpu;
  if (!cpu.model->has(x86::Feature::Cx16)) return raise(cpu, x86::Ud);
  uint64_t linear;
  if (!operand_address(step, step.in.operands[0], 16, true, linear)) return false;
  if (linear & 15) return raise(cpu, x86::Gp, 0);
  const Pair expected{cpu.gpr[x86::Rax], cpu.gpr[x86::Rdx]};
  const Pair fresh{cpu.gpr[x86::Rbx], cpu.gpr[x86::Rcx]};
  Pair old = expected;
  bool equal;
  const mmu::Host host = mmu::host_for_write(cpu, linear, 16);
  if (host.pointer != nullptr) {
    equal = compare_exchange16(host.pointer, old, fresh);
    mmu::wrote(cpu, host, 16);
  } else if (cpu.fault.raised) {
    return false;
  } else {
    const std::lock_guard guard(device_lock());
    if (!mmu::read_bytes(cpu, linear, &old, 16)) return false;
    equal = old.low == expected.low && old.high == expected.high;
    if (!mmu::write_bytes(cpu, linear, equal ? &fresh : &old, 16)) return false;
  }
  set_zf(cpu, equal);
  if (!equal) {
    cpu.gpr[x86::Rax] = old.low;
    cpu.gpr[x86::Rdx] = old.high;
  }
  return true;
}

}  // namespace

void add_atomics(HandlerTable& table) {
  table.sized(ZYDIS_MNEMONIC_XCHG, []<class T>() -> Handler { return xchg<T>; });
  table.sized(ZYDIS_MNEMONIC_XADD, []<class T>() -> Handler { return xadd<T>; });
  table.sized(ZYDIS_MNEMONIC_CMPXCHG, []<class T>() -> Handler { return cmpxchg<T>; });
  table.set(ZYDIS_MNEMONIC_CMPXCHG8B, cmpxchg8b);
  table.set(ZYDIS_MNEMONIC_CMPXCHG16B, cmpxchg16b);
}

}  // namespace caisson::jit
