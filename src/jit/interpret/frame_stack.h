// Pushing on a stack that is not (yet) the current one: privilege changes by gates, interrupts and exceptions.
//   Source   Intel SDM vol. 3, 5.8.5 (stack switching), 6.12.1, 6.14.2
#pragma once

#include "jit/interpret/segments.h"
#include "jit/interpret/stack.h"

namespace caisson::jit {

class FrameStack {
 public:
  // `wide`: 64-bit stack pushes; `error`: what #SS carries.
  FrameStack(Cpu& cpu, const Segment& segment, uint64_t pointer, bool wide, As as, uint32_t error)
      : cpu_(cpu),
        segment_(segment),
        bits_(wide            ? 64
              : segment.big() ? 32
                              : 16),
        pointer_(truncate(pointer, bits_)),
        as_(as),
        error_(error) {}

  [[nodiscard]] bool push(uint64_t value, unsigned bits);
  [[nodiscard]] uint64_t pointer() const { return pointer_; }

 private:
  Cpu& cpu_;
  const Segment& segment_;
  unsigned bits_;
  uint64_t pointer_;
  As as_;
  uint32_t error_;
};

// Stack for privilege level `level` from the 16- or 32-bit TSS: #TS(TR | ext) where it does not reach so far.
[[nodiscard]] bool stack_from_tss(Cpu& cpu, unsigned level, uint32_t ext, uint16_t& selector, uint64_t& pointer);
// A stack pointer of the 64-bit TSS: RSP0-2 at 4 + 8 × level, IST1-7 at 28 + 8 × ist.
[[nodiscard]] bool rsp_from_tss(Cpu& cpu, unsigned offset, uint32_t ext, uint64_t& pointer);

// As whom pushes for code at `cpl` go to memory.
[[nodiscard]] inline As stack_access(unsigned cpl, const Cpu& cpu) { return cpl == cpu.cpl ? As::Current : As::System; }

}  // namespace caisson::jit
