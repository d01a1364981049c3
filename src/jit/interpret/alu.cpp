// Integer arithmetic and logic with two operands or one: ADD … CMP, TEST, INC, DEC, NEG, NOT, ADCX, ADOX, and the flag
// instructions CLC … CMC, LAHF, SAHF, SALC.
//   Source   Intel SDM vol. 2
#include "jit/interpret/flags.h"
#include "jit/interpret/operands.h"

namespace caisson::jit {
namespace {

namespace rf = x86::rflags;

CAISSON_NATIVE_BINARY(Add, "add")
CAISSON_NATIVE_BINARY(Or, "or")
CAISSON_NATIVE_BINARY(Adc, "adc")
CAISSON_NATIVE_BINARY(Sbb, "sbb")
CAISSON_NATIVE_BINARY(And, "and")
CAISSON_NATIVE_BINARY(Sub, "sub")
CAISSON_NATIVE_BINARY(Xor, "xor")
CAISSON_NATIVE_BINARY(Test, "test")
CAISSON_NATIVE_BINARY(Cmp, "cmp")
CAISSON_NATIVE_UNARY(Inc, "inc")
CAISSON_NATIVE_UNARY(Dec, "dec")
CAISSON_NATIVE_UNARY(Neg, "neg")

struct Not {
  template <class T>
  static T run(T a, uint64_t&) {
    return static_cast<T>(~a);
  }
};

template <class Op, class T>
bool binary(Step& step) {
  const Operand& destination = step.in.operands[0];
  const Operand& source = step.in.operands[1];
  T b;
  if (destination.kind == Operand::Kind::Register) {
    if (!get<T>(step, source, b)) return false;
    set_register<T>(step.cpu, destination, Op::run(get_register<T>(step.cpu, destination), b, step.cpu.rflags));
    return true;
  }
  b = source.kind == Operand::Kind::Register ? get_register<T>(step.cpu, source) : static_cast<T>(source.immediate);
  return modify<T>(step, destination, [b](T a, uint64_t& flags) { return Op::run(a, b, flags); });
}

template <class Op, class T>
bool compare(Step& step) {
  T a, b;
  if (!get<T>(step, step.in.operands[0], a) || !get<T>(step, step.in.operands[1], b)) return false;
  Op::run(a, b, step.cpu.rflags);
  return true;
}

template <class Op, class T>
bool unary(Step& step) {
  return update<T>(step, step.in.operands[0], [](T a, uint64_t& flags) { return Op::run(a, flags); });
}

// ADCX carries through CF, ADOX through OF; no other flag changes.
template <uint64_t Flag, class T>
bool add_with_flag(Step& step) {
  if (!step.cpu.model->has(x86::Feature::Adx)) return raise(step.cpu, x86::Ud);
  T b;
  if (!get<T>(step, step.in.operands[1], b)) return false;
  const T a = get_register<T>(step.cpu, step.in.operands[0]);
  T sum;
  bool carry = __builtin_add_overflow(a, b, &sum);
  carry |= __builtin_add_overflow(sum, static_cast<T>((step.cpu.rflags & Flag) != 0), &sum);
  set_register<T>(step.cpu, step.in.operands[0], sum);
  step.cpu.rflags = carry ? step.cpu.rflags | Flag : step.cpu.rflags & ~Flag;
  return true;
}

template <uint64_t Flag>
bool set_flag(Step& step) {
  step.cpu.rflags |= Flag;
  return true;
}

template <uint64_t Flag>
bool clear_flag(Step& step) {
  step.cpu.rflags &= ~Flag;
  return true;
}

bool cmc(Step& step) {
  step.cpu.rflags ^= rf::cf;
  return true;
}

bool lahf(Step& step) {
  Cpu& cpu = step.cpu;
  if (cpu.code_bits == 64 && !cpu.model->has(x86::Feature::Lahf64)) return raise(cpu, x86::Ud);
  cpu.gpr[x86::Rax] = (cpu.gpr[x86::Rax] & ~uint64_t{0xff00}) | ((cpu.rflags & 0xd5) | 2) << 8;
  return true;
}

bool sahf(Step& step) {
  Cpu& cpu = step.cpu;
  if (cpu.code_bits == 64 && !cpu.model->has(x86::Feature::Lahf64)) return raise(cpu, x86::Ud);
  cpu.rflags = (cpu.rflags & ~uint64_t{0xd5}) | (cpu.gpr[x86::Rax] >> 8 & 0xd5);
  return true;
}

bool salc(Step& step) {
  set_gpr<uint8_t>(step.cpu, x86::Rax, step.cpu.rflags & rf::cf ? 0xff : 0);
  return true;
}

}  // namespace

void add_alu(HandlerTable& table) {
  table.sized(ZYDIS_MNEMONIC_ADD, []<class T>() -> Handler { return binary<Add, T>; });
  table.sized(ZYDIS_MNEMONIC_OR, []<class T>() -> Handler { return binary<Or, T>; });
  table.sized(ZYDIS_MNEMONIC_ADC, []<class T>() -> Handler { return binary<Adc, T>; });
  table.sized(ZYDIS_MNEMONIC_SBB, []<class T>() -> Handler { return binary<Sbb, T>; });
  table.sized(ZYDIS_MNEMONIC_AND, []<class T>() -> Handler { return binary<And, T>; });
  table.sized(ZYDIS_MNEMONIC_SUB, []<class T>() -> Handler { return binary<Sub, T>; });
  table.sized(ZYDIS_MNEMONIC_XOR, []<class T>() -> Handler { return binary<Xor, T>; });
  table.sized(ZYDIS_MNEMONIC_CMP, []<class T>() -> Handler { return compare<Cmp, T>; });
  table.sized(ZYDIS_MNEMONIC_TEST, []<class T>() -> Handler { return compare<Test, T>; });
  table.sized(ZYDIS_MNEMONIC_INC, []<class T>() -> Handler { return unary<Inc, T>; });
  table.sized(ZYDIS_MNEMONIC_DEC, []<class T>() -> Handler { return unary<Dec, T>; });
  table.sized(ZYDIS_MNEMONIC_NEG, []<class T>() -> Handler { return unary<Neg, T>; });
  table.sized(ZYDIS_MNEMONIC_NOT, []<class T>() -> Handler { return unary<Not, T>; });
  table.sized(ZYDIS_MNEMONIC_ADCX, []<class T>() -> Handler { return add_with_flag<rf::cf, T>; });
  table.sized(ZYDIS_MNEMONIC_ADOX, []<class T>() -> Handler { return add_with_flag<rf::of, T>; });
  table.set(ZYDIS_MNEMONIC_CLC, clear_flag<rf::cf>);
  table.set(ZYDIS_MNEMONIC_STC, set_flag<rf::cf>);
  table.set(ZYDIS_MNEMONIC_CLD, clear_flag<rf::df>);
  table.set(ZYDIS_MNEMONIC_STD, set_flag<rf::df>);
  table.set(ZYDIS_MNEMONIC_CMC, cmc);
  table.set(ZYDIS_MNEMONIC_LAHF, lahf);
  table.set(ZYDIS_MNEMONIC_SAHF, sahf);
  table.set(ZYDIS_MNEMONIC_SALC, salc);
}

}  // namespace caisson::jit
