// SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD, and the flagless SHLX, SHRX, SARX, RORX.
//   Source   Intel SDM vol. 2; counts are masked to 5 bits (6 for 64-bit operands) and zero changes no flag
#include <bit>

#include "jit/interpret/flags.h"
#include "jit/interpret/operands.h"

namespace caisson::jit {
namespace {

CAISSON_NATIVE_SHIFT(Shl, "shl")
CAISSON_NATIVE_SHIFT(Shr, "shr")
CAISSON_NATIVE_SHIFT(Sar, "sar")
CAISSON_NATIVE_SHIFT(Rol, "rol")
CAISSON_NATIVE_SHIFT(Ror, "ror")
CAISSON_NATIVE_SHIFT(Rcl, "rcl")
CAISSON_NATIVE_SHIFT(Rcr, "rcr")

// The host instruction masks the count and keeps the flags of a zero count itself.
template <class Op, class T>
bool shift(Step& step) {
  const Operand& source = step.in.operands[1];
  const uint8_t count = source.kind == Operand::Kind::Register ? static_cast<uint8_t>(step.cpu.gpr[x86::Rcx])
                                                               : static_cast<uint8_t>(source.immediate);
  return update<T>(step, step.in.operands[0], [count](T a, uint64_t& flags) { return Op::run(a, count, flags); });
}

template <bool Left, class T>
bool double_shift(Step& step) {
  if constexpr (sizeof(T) == 1) {
    return raise(step.cpu, x86::Ud);
  } else {
    const Operand& third = step.in.operands[2];
    const uint8_t count = third.kind == Operand::Kind::Register ? static_cast<uint8_t>(step.cpu.gpr[x86::Rcx])
                                                                : static_cast<uint8_t>(third.immediate);
    const T b = get_register<T>(step.cpu, step.in.operands[1]);
    return update<T>(step, step.in.operands[0], [count, b](T a, uint64_t& flags) {
      uint16_t ax = pack_flags(flags);
      if constexpr (Left) {
        asm(CAISSON_FLAGS_IN "shld %%cl, %[b], %[a]" CAISSON_FLAGS_OUT
            : [a] "+&r"(a), "+&a"(ax)
            : [b] "r"(b), "c"(count)
            : "cc");
      } else {
        asm(CAISSON_FLAGS_IN "shrd %%cl, %[b], %[a]" CAISSON_FLAGS_OUT
            : [a] "+&r"(a), "+&a"(ax)
            : [b] "r"(b), "c"(count)
            : "cc");
      }
      flags = unpack_flags(flags, ax);
      return a;
    });
  }
}

enum class Direction { Left, Right, Arithmetic };

template <Direction Way, class T>
bool shift_without_flags(Step& step) {
  if (!step.cpu.model->has(x86::Feature::Bmi2)) return raise(step.cpu, x86::Ud);
  constexpr unsigned mask = sizeof(T) * 8 - 1;
  T a;
  if (!get<T>(step, step.in.operands[1], a)) return false;
  const unsigned count = static_cast<unsigned>(get_register<T>(step.cpu, step.in.operands[2])) & mask;
  T result;
  if constexpr (Way == Direction::Left) {
    result = static_cast<T>(a << count);
  } else if constexpr (Way == Direction::Right) {
    result = static_cast<T>(a >> count);
  } else {
    result = static_cast<T>(static_cast<std::make_signed_t<T>>(a) >> count);
  }
  set_register<T>(step.cpu, step.in.operands[0], result);
  return true;
}

template <class T>
bool rorx(Step& step) {
  if (!step.cpu.model->has(x86::Feature::Bmi2)) return raise(step.cpu, x86::Ud);
  T a;
  if (!get<T>(step, step.in.operands[1], a)) return false;
  const int count = static_cast<int>(step.in.operands[2].immediate & (sizeof(T) * 8 - 1));
  set_register<T>(step.cpu, step.in.operands[0], std::rotr(a, count));
  return true;
}

}  // namespace

void add_shifts(HandlerTable& table) {
  table.sized(ZYDIS_MNEMONIC_SHL, []<class T>() -> Handler { return shift<Shl, T>; });
  table.sized(ZYDIS_MNEMONIC_SHR, []<class T>() -> Handler { return shift<Shr, T>; });
  table.sized(ZYDIS_MNEMONIC_SAR, []<class T>() -> Handler { return shift<Sar, T>; });
  table.sized(ZYDIS_MNEMONIC_ROL, []<class T>() -> Handler { return shift<Rol, T>; });
  table.sized(ZYDIS_MNEMONIC_ROR, []<class T>() -> Handler { return shift<Ror, T>; });
  table.sized(ZYDIS_MNEMONIC_RCL, []<class T>() -> Handler { return shift<Rcl, T>; });
  table.sized(ZYDIS_MNEMONIC_RCR, []<class T>() -> Handler { return shift<Rcr, T>; });
  table.sized(ZYDIS_MNEMONIC_SHLD, []<class T>() -> Handler { return double_shift<true, T>; });
  table.sized(ZYDIS_MNEMONIC_SHRD, []<class T>() -> Handler { return double_shift<false, T>; });
  table.sized(ZYDIS_MNEMONIC_SHLX, []<class T>() -> Handler { return shift_without_flags<Direction::Left, T>; });
  table.sized(ZYDIS_MNEMONIC_SHRX, []<class T>() -> Handler { return shift_without_flags<Direction::Right, T>; });
  table.sized(ZYDIS_MNEMONIC_SARX, []<class T>() -> Handler { return shift_without_flags<Direction::Arithmetic, T>; });
  table.sized(ZYDIS_MNEMONIC_RORX, []<class T>() -> Handler { return rorx<T>; });
}

}  // namespace caisson::jit
