// The index and count registers of string instructions, by address size.
//   Source   Intel SDM vol. 2, REP
#pragma once

#include <algorithm>

#include "jit/interpret/operands.h"

namespace caisson::jit {

class StringRegisters {
 public:
  StringRegisters(Step& step, unsigned element)
      : cpu_(step.cpu),
        bits_(step.in.address_bits),
        repeated_(step.in.rep || step.in.repne),
        watched_(step.watch || (step.cpu.rflags & x86::rflags::tf)),
        stride_(step.cpu.rflags & x86::rflags::df ? -int64_t{element} : int64_t{element}) {}

  [[nodiscard]] static unsigned source_segment(const Step& step) {
    return step.in.has_segment_override ? step.in.segment_override : unsigned{x86::Ds};
  }

  [[nodiscard]] bool repeated() const { return repeated_; }
  [[nodiscard]] bool ascending() const { return stride_ > 0; }
  [[nodiscard]] uint64_t source() const { return truncate(cpu_.gpr[x86::Rsi], bits_); }
  [[nodiscard]] uint64_t destination() const { return truncate(cpu_.gpr[x86::Rdi], bits_); }

  // How many elements this step may do: one under single-stepping.
  [[nodiscard]] uint64_t iterations(uint64_t most) const {
    if (!repeated_) return 1;
    return std::min(truncate(cpu_.gpr[x86::Rcx], bits_), watched_ ? 1 : most);
  }

  void advance(uint64_t count, bool source, bool destination) {
    const uint64_t distance = static_cast<uint64_t>(static_cast<int64_t>(count) * stride_);
    if (source) add(x86::Rsi, distance);
    if (destination) add(x86::Rdi, distance);
    if (repeated_) add(x86::Rcx, uint64_t{0} - count);
  }

  // After the elements of this step: stays at the instruction where some are left.
  void finish(Step& step) const {
    // A count of 32 bits is written back as one, also where it was 0 at once (the manual is silent, Intel's processors
    // do).
    if (repeated_ && bits_ == 32) cpu_.gpr[x86::Rcx] &= 0xffff'ffff;
    if (!repeated_ || truncate(cpu_.gpr[x86::Rcx], bits_) == 0) return;
    step.next = cpu_.rip;
    step.unfinished = true;
  }

 private:
  void add(unsigned reg, uint64_t distance) {
    const uint64_t sum = cpu_.gpr[reg] + distance;
    cpu_.gpr[reg] = bits_ == 16 ? (cpu_.gpr[reg] & ~uint64_t{0xffff}) | (sum & 0xffff) : truncate(sum, bits_);
  }

  Cpu& cpu_;
  unsigned bits_;
  bool repeated_;
  bool watched_;
  int64_t stride_;
};

}  // namespace caisson::jit
