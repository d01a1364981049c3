// Stack accesses that take effect together: the pointer moves only at commit().
//   Source   Intel SDM vol. 1, 6.2 (stack address size by SS.B, 64 bits in 64-bit mode)
#pragma once

#include "jit/interpret/operands.h"

namespace caisson::jit {

[[nodiscard]] inline unsigned stack_bits(const Cpu& cpu) { return cpu.code_bits == 64 ? 64 : cpu.stack_32 ? 32 : 16; }

inline void set_stack_pointer(Cpu& cpu, uint64_t value) {
  uint64_t& rsp = cpu.gpr[x86::Rsp];
  const unsigned bits = stack_bits(cpu);
  rsp = bits == 16 ? (rsp & ~uint64_t{0xffff}) | (value & 0xffff) : truncate(value, bits);
}

class Stack {
 public:
  explicit Stack(Step& step)
      : step_(step), bits_(stack_bits(step.cpu)), pointer_(truncate(step.cpu.gpr[x86::Rsp], bits_)) {}

  [[nodiscard]] uint64_t pointer() const { return pointer_; }
  void set_pointer(uint64_t value) { pointer_ = truncate(value, bits_); }

  template <class T>
  [[nodiscard]] bool push(T value) {
    const uint64_t at = truncate(pointer_ - sizeof(T), bits_);
    uint64_t linear;
    if (!linear_address(step_, x86::Ss, at, sizeof(T), true, linear) || !mmu::write(step_.cpu, linear, value))
      return false;
    pointer_ = at;
    return true;
  }
  [[nodiscard]] bool push(uint64_t value, unsigned bits) {
    return bits == 64   ? push<uint64_t>(value)
           : bits == 32 ? push<uint32_t>(static_cast<uint32_t>(value))
                        : push<uint16_t>(static_cast<uint16_t>(value));
  }

  template <class T>
  [[nodiscard]] bool pop(T& value) {
    uint64_t linear;
    if (!linear_address(step_, x86::Ss, pointer_, sizeof(T), false, linear)) return false;
    if (!mmu::read(step_.cpu, linear, value)) return false;
    pointer_ = truncate(pointer_ + sizeof(T), bits_);
    return true;
  }
  [[nodiscard]] bool pop(uint64_t& value, unsigned bits) {
    if (bits == 64) return pop<uint64_t>(value);
    if (bits == 32) {
      uint32_t narrow;
      if (!pop<uint32_t>(narrow)) return false;
      value = narrow;
      return true;
    }
    uint16_t narrow;
    if (!pop<uint16_t>(narrow)) return false;
    value = narrow;
    return true;
  }

  void skip(uint64_t bytes) { pointer_ = truncate(pointer_ + bytes, bits_); }
  void commit() { set_stack_pointer(step_.cpu, pointer_); }

 private:
  Step& step_;
  unsigned bits_;
  uint64_t pointer_;
};

}  // namespace caisson::jit
