// The guest's physical memory map as firmware would report it.
//   Spec     ACPI 6.5, chapter 15 (E820 ranges); PVH's hvm_memmap_table_entry has the same types
//   Threads  none
#pragma once

#include <cstdint>
#include <vector>

#include "memory/guest_memory.h"

namespace caisson::boot {

enum class MemoryType : uint32_t { Ram = 1, Reserved = 2, AcpiReclaim = 3, AcpiNvs = 4 };

struct MemoryRange {
  Gpa base = 0;
  uint64_t size = 0;
  MemoryType type = MemoryType::Ram;
  bool operator==(const MemoryRange&) const = default;
};

// Fixed places below 1 MiB.
inline constexpr Gpa ebda_base = 0x9'fc00, vga_hole = 0xa'0000, bios_base = 0xe'0000, one_mib = 0x10'0000;

class MemoryMap {
 public:
  // RAM without the EBDA and the hole from 640 KiB to 1 MiB, whose upper part is reserved for firmware.
  explicit MemoryMap(const GuestMemory& memory);

  // Gives a range a type, whatever it had before.
  void set(Gpa base, uint64_t size, MemoryType type);

  // Sorted, not overlapping, neighbours of one type joined.
  [[nodiscard]] const std::vector<MemoryRange>& ranges() const { return ranges_; }

 private:
  std::vector<MemoryRange> ranges_;
};

}  // namespace caisson::boot
