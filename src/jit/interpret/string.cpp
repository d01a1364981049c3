// MOVS, CMPS, STOS, LODS, SCAS with REP, REPE, REPNE.
//   Source   Intel SDM vol. 2, REP; vol. 1, 7.3.9
// One step does at most 4096 bytes, then the instruction stays at its RIP so that interrupts can come in. Ascending
// copies and fills run page by page with the host's own string instructions, whose treatment of overlap is the guest's.
#include "jit/interpret/string.h"

#include <algorithm>

#include "jit/interpret/flags.h"

namespace caisson::jit {
namespace {

CAISSON_NATIVE_BINARY(Cmp, "cmp")

constexpr uint64_t bytes_per_step = 4096;

template <class T>
void native_movs(uint8_t* to, const uint8_t* from, uint64_t count) {
  if constexpr (sizeof(T) == 1) {
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
  } else if constexpr (sizeof(T) == 2) {
    asm volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(count)::"memory");
  } else if constexpr (sizeof(T) == 4) {
    asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count)::"memory");
  } else {
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count)::"memory");
  }
}

template <class T>
void native_stos(uint8_t* to, T value, uint64_t count) {
  if constexpr (sizeof(T) == 1) {
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  } else if constexpr (sizeof(T) == 2) {
    asm volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  } else if constexpr (sizeof(T) == 4) {
    asm volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  } else {
    asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  }
}

// Linear address of a whole run of `size` bytes, if segment and address size allow it; raises nothing.
bool run_address(Step& step, unsigned segment, uint64_t offset, uint64_t size, bool write, uint64_t& linear) {
  Cpu& cpu = step.cpu;
  if (step.in.address_bits != 64 && offset + size > (uint64_t{1} << step.in.address_bits)) return false;
  if (cpu.code_bits == 64) {
    linear = segment >= x86::Fs ? offset + cpu.segments[segment].base : offset;
    return canonical(linear) && canonical(linear + size - 1);
  }
  if (legacy_linear(cpu, segment, offset, size, write, linear)) return linear + size <= 0x1'0000'0000;
  cpu.fault = {};
  return false;
}

template <class T>
bool movs(Step& step) {
  Cpu& cpu = step.cpu;
  const unsigned source_segment = StringRegisters::source_segment(step);
  StringRegisters regs(step, sizeof(T));
  const bool runs = regs.repeated() && regs.ascending() && !step.watch;
  uint64_t left = regs.iterations(bytes_per_step / sizeof(T));
  while (left > 0) {
    const uint64_t from = regs.source(), to = regs.destination();
    uint64_t from_linear, to_linear;
    uint64_t done = 1;
    if (runs && left > 1 && run_address(step, source_segment, from, left * sizeof(T), false, from_linear) &&
        run_address(step, x86::Es, to, left * sizeof(T), true, to_linear)) {
      const unsigned want = static_cast<unsigned>(left * sizeof(T));
      uint8_t* source_host;
      mmu::Host host;
      unsigned bytes = mmu::run_for_read(cpu, from_linear, want, source_host);
      if (bytes >= sizeof(T)) bytes = mmu::run_for_write(cpu, to_linear, bytes, host);
      if (cpu.fault.raised) return false;
      if (bytes >= sizeof(T)) {
        done = bytes / sizeof(T);
        native_movs<T>(host.pointer, source_host, done);
        mmu::wrote(cpu, host, static_cast<unsigned>(done * sizeof(T)));
        regs.advance(done, true, true);
        left -= done;
        continue;
      }
    }
    T value;
    if (!linear_address(step, source_segment, from, sizeof(T), false, from_linear)) return false;
    if (!linear_address(step, x86::Es, to, sizeof(T), true, to_linear)) return false;
    if (!mmu::read(cpu, from_linear, value) || !mmu::write(cpu, to_linear, value)) return false;
    regs.advance(1, true, true);
    --left;
  }
  regs.finish(step);
  return true;
}

template <class T>
bool stos(Step& step) {
  Cpu& cpu = step.cpu;
  StringRegisters regs(step, sizeof(T));
  const bool runs = regs.repeated() && regs.ascending() && !step.watch;
  const T value = static_cast<T>(cpu.gpr[x86::Rax]);
  uint64_t left = regs.iterations(bytes_per_step / sizeof(T));
  while (left > 0) {
    const uint64_t to = regs.destination();
    uint64_t linear;
    if (runs && left > 1 && run_address(step, x86::Es, to, left * sizeof(T), true, linear)) {
      mmu::Host host;
      const unsigned bytes = mmu::run_for_write(cpu, linear, static_cast<unsigned>(left * sizeof(T)), host);
      if (cpu.fault.raised) return false;
      if (bytes >= sizeof(T)) {
        const uint64_t done = bytes / sizeof(T);
        native_stos<T>(host.pointer, value, done);
        mmu::wrote(cpu, host, static_cast<unsigned>(done * sizeof(T)));
        regs.advance(done, false, true);
        left -= done;
        continue;
      }
    }
    if (!linear_address(step, x86::Es, to, sizeof(T), true, linear)) return false;
    if (!mmu::write(cpu, linear, value)) return false;
    regs.advance(1, false, true);
    --left;
  }
  regs.finish(step);
  return true;
}

template <class T>
bool lods(Step& step) {
  Cpu& cpu = step.cpu;
  const unsigned segment = StringRegisters::source_segment(step);
  StringRegisters regs(step, sizeof(T));
  for (uint64_t left = regs.iterations(bytes_per_step / sizeof(T)); left > 0; --left) {
    uint64_t linear;
    T value;
    if (!linear_address(step, segment, regs.source(), sizeof(T), false, linear)) return false;
    if (!mmu::read(cpu, linear, value)) return false;
    set_gpr<T>(cpu, x86::Rax, value);
    regs.advance(1, true, false);
  }
  regs.finish(step);
  return true;
}

// CMPS (`Source`) compares [rSI] with ES:[rDI], SCAS compares the accumulator. After a fault the flags are those from
// before the instruction (vol. 2, REP), so it is left half-way only where somebody wants the vCPU.
template <bool Source, class T>
bool compare(Step& step) {
  Cpu& cpu = step.cpu;
  uint64_t flags = cpu.rflags;
  const unsigned segment = StringRegisters::source_segment(step);
  StringRegisters regs(step, sizeof(T));
  for (uint64_t left = regs.iterations(UINT64_MAX); left > 0; --left) {
    uint64_t linear;
    T a = static_cast<T>(cpu.gpr[x86::Rax]), b;
    if (Source) {
      if (!linear_address(step, segment, regs.source(), sizeof(T), false, linear)) return false;
      if (!mmu::read(cpu, linear, a)) return false;
    }
    if (!linear_address(step, x86::Es, regs.destination(), sizeof(T), false, linear)) return false;
    if (!mmu::read(cpu, linear, b)) return false;
    regs.advance(1, Source, true);
    Cmp::run(a, b, flags);
    if (regs.repeated() && (a == b) == step.in.repne) {  // the condition ends it
      cpu.rflags = flags;
      return true;
    }
    if (cpu.exit_request.load(std::memory_order_relaxed) != 0) break;
  }
  cpu.rflags = flags;
  regs.finish(step);
  return true;
}

}  // namespace

void add_strings(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_MOVSB, movs<uint8_t>);
  table.set(ZYDIS_MNEMONIC_MOVSW, movs<uint16_t>);
  table.set(ZYDIS_MNEMONIC_MOVSD, movs<uint32_t>);
  table.set(ZYDIS_MNEMONIC_MOVSQ, movs<uint64_t>);
  table.set(ZYDIS_MNEMONIC_STOSB, stos<uint8_t>);
  table.set(ZYDIS_MNEMONIC_STOSW, stos<uint16_t>);
  table.set(ZYDIS_MNEMONIC_STOSD, stos<uint32_t>);
  table.set(ZYDIS_MNEMONIC_STOSQ, stos<uint64_t>);
  table.set(ZYDIS_MNEMONIC_LODSB, lods<uint8_t>);
  table.set(ZYDIS_MNEMONIC_LODSW, lods<uint16_t>);
  table.set(ZYDIS_MNEMONIC_LODSD, lods<uint32_t>);
  table.set(ZYDIS_MNEMONIC_LODSQ, lods<uint64_t>);
  table.set(ZYDIS_MNEMONIC_CMPSB, compare<true, uint8_t>);
  table.set(ZYDIS_MNEMONIC_CMPSW, compare<true, uint16_t>);
  table.set(ZYDIS_MNEMONIC_CMPSD, compare<true, uint32_t>);
  table.set(ZYDIS_MNEMONIC_CMPSQ, compare<true, uint64_t>);
  table.set(ZYDIS_MNEMONIC_SCASB, compare<false, uint8_t>);
  table.set(ZYDIS_MNEMONIC_SCASW, compare<false, uint16_t>);
  table.set(ZYDIS_MNEMONIC_SCASD, compare<false, uint32_t>);
  table.set(ZYDIS_MNEMONIC_SCASQ, compare<false, uint64_t>);
}

}  // namespace caisson::jit
