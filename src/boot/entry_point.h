// Where and in which state the first CPU starts, in plain values; machine/ turns them into a CpuState.
#pragma once

#include <cstdint>

namespace caisson::boot {

// Attributes in the layout of the VMCS access-rights field (Intel SDM vol. 3, 25.4.1).
struct EntrySegment {
  uint16_t selector = 0;
  uint64_t base = 0;
  uint32_t limit = 0;
  uint32_t attributes = 0;
};

struct EntryPoint {
  enum class Mode : uint8_t { Long64, Protected32 };
  Mode mode = Mode::Long64;
  uint64_t rip = 0;
  uint64_t rsp = 0;
  uint64_t rax = 0;
  uint64_t rbx = 0;
  uint64_t rsi = 0;
  uint64_t rflags = 2;
  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  EntrySegment code;  // CS
  EntrySegment data;  // DS ES SS FS GS
  EntrySegment task;  // TR
  uint64_t gdt_base = 0;
  uint16_t gdt_limit = 0;  // the IDT is empty: base 0, limit 0
};

}  // namespace caisson::boot
