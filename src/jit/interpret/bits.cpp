// Bit tests and scans, counts, BMI1, BMI2 and CRC32.
//   Source   Intel SDM vol. 2
// BT and its kin with a register bit offset address memory beyond their operand (vol. 2, BT). LZCNT and TZCNT execute
// as BSR and BSF on models without them, as their encoding does on such CPUs.
#include "jit/interpret/flags.h"
#include "jit/interpret/operands.h"

namespace caisson::jit {
namespace {

using x86::Feature;

CAISSON_NATIVE_BINARY(Bt, "bt")
CAISSON_NATIVE_BINARY(Bts, "bts")
CAISSON_NATIVE_BINARY(Btr, "btr")
CAISSON_NATIVE_BINARY(Btc, "btc")

template <class Op, bool Writes, class T>
bool bit_test(Step& step) {
  if constexpr (sizeof(T) == 1) {
    return raise(step.cpu, x86::Ud);
  } else {
    Cpu& cpu = step.cpu;
    const Operand& destination = step.in.operands[0];
    const Operand& source = step.in.operands[1];
    constexpr unsigned bits = sizeof(T) * 8;
    T index = source.kind == Operand::Kind::Register ? get_register<T>(cpu, source) : static_cast<T>(source.immediate);
    if (destination.kind == Operand::Kind::Register) {
      const T result = Op::run(get_register<T>(cpu, destination), index, cpu.rflags);
      if (Writes) set_register<T>(cpu, destination, result);
      return true;
    }
    uint64_t offset = effective_offset(step, destination);
    if (source.kind == Operand::Kind::Register) {
      const int64_t unit = sign_extend(index, bits) >> (bits == 64 ? 6 : bits == 32 ? 5 : 4);
      offset = truncate(offset + static_cast<uint64_t>(unit * static_cast<int64_t>(sizeof(T))), step.in.address_bits);
    }
    index &= bits - 1;
    uint64_t linear;
    if (!linear_address(step, destination.segment, offset, sizeof(T), Writes, linear)) return false;
    if constexpr (Writes) {
      return modify_linear<T>(step, linear, step.in.lock,
                              [index](T a, uint64_t& flags) { return Op::run(a, index, flags); });
    } else {
      T value;
      if (!mmu::read(cpu, linear, value)) return false;
      Op::run(value, index, cpu.rflags);
      return true;
    }
  }
}

// "op b, a" where the destination keeps its value for some sources (BSF, BSR with zero): runs on full registers.
#define CAISSON_NATIVE_SCAN(name, op)                                                                                  \
  template <class T>                                                                                                   \
  void name(Step& step, T source) {                                                                                    \
    Cpu& cpu = step.cpu;                                                                                               \
    uint64_t full = cpu.gpr[step.in.operands[0].reg];                                                                  \
    uint16_t ax = pack_flags(cpu.rflags);                                                                              \
    if constexpr (sizeof(T) == 8) {                                                                                    \
      asm(CAISSON_FLAGS_IN op " %[b], %q[a]" CAISSON_FLAGS_OUT : [a] "+&r"(full), "+&a"(ax) : [b] "r"(source) : "cc"); \
    } else if constexpr (sizeof(T) == 4) {                                                                             \
      asm(CAISSON_FLAGS_IN op " %[b], %k[a]" CAISSON_FLAGS_OUT : [a] "+&r"(full), "+&a"(ax) : [b] "r"(source) : "cc"); \
    } else {                                                                                                           \
      asm(CAISSON_FLAGS_IN op " %w[b], %w[a]" CAISSON_FLAGS_OUT                                                        \
          : [a] "+&r"(full), "+&a"(ax)                                                                                 \
          : [b] "r"(uint32_t{source})                                                                                  \
          : "cc");                                                                                                     \
    }                                                                                                                  \
    cpu.gpr[step.in.operands[0].reg] = full;                                                                           \
    cpu.rflags = unpack_flags(cpu.rflags, ax);                                                                         \
  }

CAISSON_NATIVE_SCAN(native_bsf, "bsf")
CAISSON_NATIVE_SCAN(native_bsr, "bsr")
CAISSON_NATIVE_SCAN(native_tzcnt, "tzcnt")
CAISSON_NATIVE_SCAN(native_lzcnt, "lzcnt")
CAISSON_NATIVE_SCAN(native_popcnt, "popcnt")

enum class Scan { Forward, Reverse, Trailing, Leading, Population };

template <Scan Kind, class T>
bool scan(Step& step) {
  const x86::CpuModel& model = *step.cpu.model;
  if (Kind == Scan::Population && !model.has(Feature::Popcnt)) return raise(step.cpu, x86::Ud);
  T source;
  if (!get<T>(step, step.in.operands[1], source)) return false;
  if constexpr (Kind == Scan::Forward) {
    native_bsf(step, source);
  } else if constexpr (Kind == Scan::Reverse) {
    native_bsr(step, source);
  } else if constexpr (Kind == Scan::Trailing) {
    model.has(Feature::Bmi1) ? native_tzcnt(step, source) : native_bsf(step, source);
  } else if constexpr (Kind == Scan::Leading) {
    model.has(Feature::Lzcnt) ? native_lzcnt(step, source) : native_bsr(step, source);
  } else {
    native_popcnt(step, source);
  }
  return true;
}

// VEX-encoded "op c, b, a" in AT&T order; `a` is written, flags go through.
#define CAISSON_NATIVE_BMI(Name, op, needs)                         \
  struct Name {                                                     \
    static constexpr Feature feature = needs;                       \
    template <class T>                                              \
    static T run(T b, T c, uint64_t& flags) {                       \
      T a;                                                          \
      uint16_t ax = pack_flags(flags);                              \
      asm(CAISSON_FLAGS_IN op " %[c], %[b], %[a]" CAISSON_FLAGS_OUT \
          : [a] "=&r"(a), "+&a"(ax)                                 \
          : [b] "r"(b), [c] "r"(c)                                  \
          : "cc");                                                  \
      flags = unpack_flags(flags, ax);                              \
      return a;                                                     \
    }                                                               \
  };

CAISSON_NATIVE_BMI(Andn, "andn", Feature::Bmi1)    // a = ~b & c
CAISSON_NATIVE_BMI(Bextr, "bextr", Feature::Bmi1)  // AT&T: control, source, destination
CAISSON_NATIVE_BMI(Bzhi, "bzhi", Feature::Bmi2)
CAISSON_NATIVE_BMI(Pdep, "pdep", Feature::Bmi2)
CAISSON_NATIVE_BMI(Pext, "pext", Feature::Bmi2)

#define CAISSON_NATIVE_BLS(Name, op)                                                                          \
  struct Name {                                                                                               \
    template <class T>                                                                                        \
    static T run(T b, uint64_t& flags) {                                                                      \
      T a;                                                                                                    \
      uint16_t ax = pack_flags(flags);                                                                        \
      asm(CAISSON_FLAGS_IN op " %[b], %[a]" CAISSON_FLAGS_OUT : [a] "=&r"(a), "+&a"(ax) : [b] "r"(b) : "cc"); \
      flags = unpack_flags(flags, ax);                                                                        \
      return a;                                                                                               \
    }                                                                                                         \
  };

CAISSON_NATIVE_BLS(Blsi, "blsi")
CAISSON_NATIVE_BLS(Blsmsk, "blsmsk")
CAISSON_NATIVE_BLS(Blsr, "blsr")

// Intel operand order a, b, c: `c` may be memory for ANDN, PDEP and PEXT, `b` for BEXTR and BZHI; get() takes either.
template <class Op, class T>
bool bmi3(Step& step) {
  if constexpr (sizeof(T) < 4) {
    return raise(step.cpu, x86::Ud);
  } else {
    if (!step.cpu.model->has(Op::feature)) return raise(step.cpu, x86::Ud);
    T b, c;
    if (!get<T>(step, step.in.operands[1], b) || !get<T>(step, step.in.operands[2], c)) return false;
    set_register<T>(step.cpu, step.in.operands[0], Op::run(b, c, step.cpu.rflags));
    return true;
  }
}

template <class Op, class T>
bool bmi2_operands(Step& step) {
  if constexpr (sizeof(T) < 4) {
    return raise(step.cpu, x86::Ud);
  } else {
    if (!step.cpu.model->has(Feature::Bmi1)) return raise(step.cpu, x86::Ud);
    T b;
    if (!get<T>(step, step.in.operands[1], b)) return false;
    set_register<T>(step.cpu, step.in.operands[0], Op::run(b, step.cpu.rflags));
    return true;
  }
}

bool crc32(Step& step) {
  Cpu& cpu = step.cpu;
  if (!cpu.model->has(Feature::Sse42)) return raise(cpu, x86::Ud);
  const Operand& source = step.in.operands[1];
  uint64_t crc = static_cast<uint32_t>(cpu.gpr[step.in.operands[0].reg]);
  const auto accumulate = [&]<class T>(T value) {
    if (!get<T>(step, source, value)) return false;
    if constexpr (sizeof(T) == 8) {
      asm("crc32q %[b], %q[a]" : [a] "+r"(crc) : [b] "r"(value));
    } else if constexpr (sizeof(T) == 4) {
      asm("crc32l %[b], %k[a]" : [a] "+r"(crc) : [b] "r"(value));
    } else if constexpr (sizeof(T) == 2) {
      asm("crc32w %[b], %k[a]" : [a] "+r"(crc) : [b] "r"(value));
    } else {
      asm("crc32b %[b], %k[a]" : [a] "+r"(crc) : [b] "r"(value));
    }
    return true;
  };
  const bool done = source.bits == 64   ? accumulate(uint64_t{})
                    : source.bits == 32 ? accumulate(uint32_t{})
                    : source.bits == 16 ? accumulate(uint16_t{})
                                        : accumulate(uint8_t{});
  if (done) cpu.gpr[step.in.operands[0].reg] = static_cast<uint32_t>(crc);
  return done;
}

}  // namespace

void add_bits(HandlerTable& table) {
  table.sized(ZYDIS_MNEMONIC_BT, []<class T>() -> Handler { return bit_test<Bt, false, T>; });
  table.sized(ZYDIS_MNEMONIC_BTS, []<class T>() -> Handler { return bit_test<Bts, true, T>; });
  table.sized(ZYDIS_MNEMONIC_BTR, []<class T>() -> Handler { return bit_test<Btr, true, T>; });
  table.sized(ZYDIS_MNEMONIC_BTC, []<class T>() -> Handler { return bit_test<Btc, true, T>; });
  table.sized(ZYDIS_MNEMONIC_BSF, []<class T>() -> Handler { return scan<Scan::Forward, T>; });
  table.sized(ZYDIS_MNEMONIC_BSR, []<class T>() -> Handler { return scan<Scan::Reverse, T>; });
  table.sized(ZYDIS_MNEMONIC_TZCNT, []<class T>() -> Handler { return scan<Scan::Trailing, T>; });
  table.sized(ZYDIS_MNEMONIC_LZCNT, []<class T>() -> Handler { return scan<Scan::Leading, T>; });
  table.sized(ZYDIS_MNEMONIC_POPCNT, []<class T>() -> Handler { return scan<Scan::Population, T>; });
  table.sized(ZYDIS_MNEMONIC_ANDN, []<class T>() -> Handler { return bmi3<Andn, T>; });
  table.sized(ZYDIS_MNEMONIC_BEXTR, []<class T>() -> Handler { return bmi3<Bextr, T>; });
  table.sized(ZYDIS_MNEMONIC_BZHI, []<class T>() -> Handler { return bmi3<Bzhi, T>; });
  table.sized(ZYDIS_MNEMONIC_PDEP, []<class T>() -> Handler { return bmi3<Pdep, T>; });
  table.sized(ZYDIS_MNEMONIC_PEXT, []<class T>() -> Handler { return bmi3<Pext, T>; });
  table.sized(ZYDIS_MNEMONIC_BLSI, []<class T>() -> Handler { return bmi2_operands<Blsi, T>; });
  table.sized(ZYDIS_MNEMONIC_BLSMSK, []<class T>() -> Handler { return bmi2_operands<Blsmsk, T>; });
  table.sized(ZYDIS_MNEMONIC_BLSR, []<class T>() -> Handler { return bmi2_operands<Blsr, T>; });
  table.set(ZYDIS_MNEMONIC_CRC32, crc32);
}

}  // namespace caisson::jit
