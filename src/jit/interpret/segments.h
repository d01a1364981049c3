// Descriptors, and loading them into segment registers.
//   Source   Intel SDM vol. 3, 3.4-3.5 (descriptors), 5.5-5.8 (privilege checks)
#pragma once

#include "jit/interpret/step.h"

namespace caisson::jit {

struct Descriptor {
  uint64_t low = 0;
  uint64_t high = 0;     // second half of 16-byte system descriptors
  uint64_t address = 0;  // where it stands (linear)

  [[nodiscard]] uint64_t base() const {
    return (low >> 16 & 0xff'ffff) | (low >> 32 & 0xff00'0000) | (high & 0xffff'ffff) << 32;
  }
  [[nodiscard]] uint32_t limit() const {
    const uint32_t raw = static_cast<uint32_t>((low & 0xffff) | (low >> 32 & 0xf'0000));
    return low & uint64_t{1} << 55 ? raw << 12 | 0xfff : raw;
  }
  // In the layout of Segment::attributes.
  [[nodiscard]] uint32_t attributes() const {
    return static_cast<uint32_t>((low >> 40 & 0xff) | (low >> 52 & 0xf) << 12);
  }
  [[nodiscard]] unsigned type() const { return static_cast<unsigned>(low >> 40 & 15); }
  [[nodiscard]] bool code_or_data() const { return low >> 44 & 1; }
  [[nodiscard]] bool code() const { return code_or_data() && (type() & 8); }
  [[nodiscard]] bool conforming() const { return type() & 4; }
  [[nodiscard]] bool writable_data() const { return code_or_data() && (type() & 10) == 2; }
  [[nodiscard]] bool readable() const { return code_or_data() && ((type() & 8) == 0 || (type() & 2)); }
  [[nodiscard]] unsigned dpl() const { return static_cast<unsigned>(low >> 45 & 3); }
  [[nodiscard]] bool present() const { return low >> 47 & 1; }
  [[nodiscard]] bool long_code() const { return low >> 53 & 1; }
  [[nodiscard]] bool big() const { return low >> 54 & 1; }

  // As a gate.
  [[nodiscard]] uint16_t gate_selector() const { return static_cast<uint16_t>(low >> 16); }
  [[nodiscard]] uint64_t gate_offset() const {
    return (low & 0xffff) | (low >> 32 & 0xffff'0000) | (high & 0xffff'ffff) << 32;
  }
  [[nodiscard]] unsigned gate_parameters() const { return static_cast<unsigned>(low >> 32 & 31); }
  [[nodiscard]] unsigned gate_ist() const { return static_cast<unsigned>(low >> 32 & 7); }

  [[nodiscard]] Segment segment(uint16_t selector) const {
    return {.base = base(), .limit = limit(), .attributes = attributes(), .selector = selector};
  }
};

// System descriptor types (vol. 3, table 3-2).
enum SystemType : uint8_t {
  Tss16 = 1,
  Ldt = 2,
  Tss16Busy = 3,
  CallGate16 = 4,
  TaskGate = 5,
  InterruptGate16 = 6,
  TrapGate16 = 7,
  Tss32 = 9,
  Tss32Busy = 11,
  CallGate32 = 12,
  InterruptGate32 = 14,
  TrapGate32 = 15
};

[[nodiscard]] inline uint32_t selector_error(uint16_t selector) { return selector & 0xfffcu; }
[[nodiscard]] inline bool null_selector(uint16_t selector) { return (selector & 0xfffc) == 0; }
[[nodiscard]] inline Segment null_segment(uint16_t selector, unsigned dpl = 0) {
  return {.base = 0, .limit = 0, .attributes = 1u << 16 | dpl << 5, .selector = selector};
}

// From GDT or LDT; `vector`(selector | ext) where it lies beyond the table.
[[nodiscard]] bool read_descriptor(Cpu& cpu, uint16_t selector, Descriptor& out, uint8_t vector = x86::Gp,
                                   uint32_t ext = 0);
// A descriptor of 16 bytes in IA-32e mode (LDT, TSS, gates).
[[nodiscard]] bool read_system_descriptor(Cpu& cpu, uint16_t selector, Descriptor& out, uint8_t vector = x86::Gp,
                                          uint32_t ext = 0);
[[nodiscard]] bool set_accessed(Cpu& cpu, Descriptor& descriptor);
// Sets or clears the busy bit of a TSS descriptor.
[[nodiscard]] bool set_busy(Cpu& cpu, Descriptor& descriptor, bool busy);

// Any segment register but CS, by the rules of MOV and POP, in every mode.
[[nodiscard]] bool load_segment(Cpu& cpu, unsigned reg, uint16_t selector);
// Checks a selector for SS at privilege `cpl` and reads its descriptor; errors are `vector`(selector | ext), #SS where
// it is not present.
[[nodiscard]] bool check_stack_segment(Cpu& cpu, uint16_t selector, unsigned cpl, uint8_t vector, uint32_t ext,
                                       Descriptor& out);
// Real and virtual-8086 mode.
[[nodiscard]] Segment real_segment(const Cpu& cpu, unsigned reg, uint16_t selector);
// After a return to an outer level: data segments it may not use become null (vol. 2, RET).
void drop_inner_segments(Cpu& cpu);

bool mov_to_segment(Step& step);
bool mov_from_segment(Step& step);

}  // namespace caisson::jit
