// MUL, IMUL, DIV, IDIV, MULX.
//   Source   Intel SDM vol. 2
// Products' undefined flags are the host's; divisions leave the flags (undefined by the manual) as they are.
#include "jit/interpret/flags.h"
#include "jit/interpret/operands.h"

namespace caisson::jit {
namespace {

template <class T>
struct Product {
  T low, high;
};

template <bool Signed, class T>
Product<T> multiply(T a, T b, uint64_t& flags) {
  uint16_t ax = pack_flags(flags);
  Product<T> product;
  if constexpr (sizeof(T) == 1) {
    uint16_t wide;
    if constexpr (Signed) {
      asm(CAISSON_FLAGS_IN "movb %[a], %%al\n\timulb %[b]\n\tmovw %%ax, %[wide]" CAISSON_FLAGS_OUT
          : "+&a"(ax), [wide] "=&r"(wide)
          : [a] "r"(a), [b] "r"(b)
          : "cc");
    } else {
      asm(CAISSON_FLAGS_IN "movb %[a], %%al\n\tmulb %[b]\n\tmovw %%ax, %[wide]" CAISSON_FLAGS_OUT
          : "+&a"(ax), [wide] "=&r"(wide)
          : [a] "r"(a), [b] "r"(b)
          : "cc");
    }
    product = {static_cast<T>(wide), static_cast<T>(wide >> 8)};
  } else {
    // The accumulator holds the flags first, then the factor, then the product's low half, then flags again.
    uint64_t accumulator = ax;
    uint64_t factor = a, low;
    if constexpr (Signed) {
      asm(CAISSON_FLAGS_IN "movq %[factor], %%rax\n\timul %[b]\n\tmovq %%rax, %[low]" CAISSON_FLAGS_OUT
          : "+&a"(accumulator), "=&d"(product.high), [low] "=&r"(low)
          : [factor] "r"(factor), [b] "r"(b)
          : "cc");
    } else {
      asm(CAISSON_FLAGS_IN "movq %[factor], %%rax\n\tmul %[b]\n\tmovq %%rax, %[low]" CAISSON_FLAGS_OUT
          : "+&a"(accumulator), "=&d"(product.high), [low] "=&r"(low)
          : [factor] "r"(factor), [b] "r"(b)
          : "cc");
    }
    ax = static_cast<uint16_t>(accumulator);
    product.low = static_cast<T>(low);
  }
  flags = unpack_flags(flags, ax);
  return product;
}

template <bool Signed, class T>
bool multiply_accumulator(Step& step) {
  Cpu& cpu = step.cpu;
  T b;
  if (!get<T>(step, step.in.operands[0], b)) return false;
  const Product<T> product = multiply<Signed>(static_cast<T>(cpu.gpr[x86::Rax]), b, cpu.rflags);
  if constexpr (sizeof(T) == 1) {
    set_gpr<uint16_t>(cpu, x86::Rax, static_cast<uint16_t>(product.low | product.high << 8));
  } else {
    set_gpr<T>(cpu, x86::Rax, product.low);
    set_gpr<T>(cpu, x86::Rdx, product.high);
  }
  return true;
}

template <class T>
bool imul(Step& step) {
  if (step.in.operand_count == 1) return multiply_accumulator<true, T>(step);
  if constexpr (sizeof(T) == 1) {
    return raise(step.cpu, x86::Ud);
  } else {
    const bool three = step.in.operand_count == 3;
    T a, b;
    if (!get<T>(step, step.in.operands[1], a)) return false;
    b = three ? static_cast<T>(step.in.operands[2].immediate) : get_register<T>(step.cpu, step.in.operands[0]);
    uint16_t ax = pack_flags(step.cpu.rflags);
    asm(CAISSON_FLAGS_IN "imul %[b], %[a]" CAISSON_FLAGS_OUT : [a] "+&r"(a), "+&a"(ax) : [b] "r"(b) : "cc");
    step.cpu.rflags = unpack_flags(step.cpu.rflags, ax);
    set_register<T>(step.cpu, step.in.operands[0], a);
    return true;
  }
}

template <class T>
struct Wider;
template <>
struct Wider<uint8_t> {
  using Unsigned = uint16_t;
  using Signed = int16_t;
  using Narrow = int8_t;
};
template <>
struct Wider<uint16_t> {
  using Unsigned = uint32_t;
  using Signed = int32_t;
  using Narrow = int16_t;
};
template <>
struct Wider<uint32_t> {
  using Unsigned = uint64_t;
  using Signed = int64_t;
  using Narrow = int32_t;
};
__extension__ typedef unsigned __int128 Unsigned128;
__extension__ typedef __int128 Signed128;
template <>
struct Wider<uint64_t> {
  using Unsigned = Unsigned128;
  using Signed = Signed128;
  using Narrow = int64_t;
};

template <bool Signed, class T>
bool divide(Step& step) {
  using Wide = typename Wider<T>::Unsigned;
  Cpu& cpu = step.cpu;
  T divisor;
  if (!get<T>(step, step.in.operands[0], divisor)) return false;
  if (divisor == 0) return raise(cpu, x86::De);
  Wide dividend;
  if constexpr (sizeof(T) == 1) {
    dividend = static_cast<uint16_t>(cpu.gpr[x86::Rax]);
  } else {
    dividend = static_cast<Wide>(static_cast<Wide>(static_cast<T>(cpu.gpr[x86::Rdx])) << (sizeof(T) * 8) |
                                 static_cast<T>(cpu.gpr[x86::Rax]));
  }
  T quotient, remainder;
  if constexpr (Signed) {
    using SignedWide = typename Wider<T>::Signed;
    using Narrow = typename Wider<T>::Narrow;
    const SignedWide a = static_cast<SignedWide>(dividend);
    const SignedWide b = static_cast<Narrow>(divisor);
    // The most negative dividend over -1 overflows the division itself.
    if (b == -1 && static_cast<Wide>(dividend << 1) == 0 && dividend != 0) return raise(cpu, x86::De);
    const SignedWide q = static_cast<SignedWide>(a / b);
    if (q != static_cast<Narrow>(q)) return raise(cpu, x86::De);
    quotient = static_cast<T>(q);
    remainder = static_cast<T>(a % b);
  } else {
    const Wide q = static_cast<Wide>(dividend / divisor);
    if (q != static_cast<T>(q)) return raise(cpu, x86::De);
    quotient = static_cast<T>(q);
    remainder = static_cast<T>(dividend % divisor);
  }
  if constexpr (sizeof(T) == 1) {
    set_gpr<uint16_t>(cpu, x86::Rax, static_cast<uint16_t>(quotient | remainder << 8));
  } else {
    set_gpr<T>(cpu, x86::Rax, quotient);
    set_gpr<T>(cpu, x86::Rdx, remainder);
  }
  return true;
}

template <class T>
bool mulx(Step& step) {
  if constexpr (sizeof(T) < 4) {
    return raise(step.cpu, x86::Ud);
  } else {
    Cpu& cpu = step.cpu;
    if (!cpu.model->has(x86::Feature::Bmi2)) return raise(cpu, x86::Ud);
    T b;
    if (!get<T>(step, step.in.operands[2], b)) return false;
    const auto product = static_cast<typename Wider<T>::Unsigned>(static_cast<T>(cpu.gpr[x86::Rdx])) * b;
    set_register<T>(cpu, step.in.operands[1], static_cast<T>(product));
    set_register<T>(cpu, step.in.operands[0], static_cast<T>(product >> (sizeof(T) * 8)));
    return true;
  }
}

}  // namespace

void add_multiply(HandlerTable& table) {
  table.sized(ZYDIS_MNEMONIC_MUL, []<class T>() -> Handler { return multiply_accumulator<false, T>; });
  table.sized(ZYDIS_MNEMONIC_IMUL, []<class T>() -> Handler { return imul<T>; });
  table.sized(ZYDIS_MNEMONIC_DIV, []<class T>() -> Handler { return divide<false, T>; });
  table.sized(ZYDIS_MNEMONIC_IDIV, []<class T>() -> Handler { return divide<true, T>; });
  table.sized(ZYDIS_MNEMONIC_MULX, []<class T>() -> Handler { return mulx<T>; });
}

}  // namespace caisson::jit
