// What a boot loader needs of an ELF file.
//   Spec     System V ABI, chapters 4 and 5 (ELF header, program headers, notes); Xen docs/misc/pvh.pandoc,
//   include/public/elfnote.h Models   executables (and PIE) for x86-64 and i386: loadable segments by physical address,
//   entry, PVH entry note Omits    sections, symbols, relocation Threads  none; all values come from an untrusted file
//   and are checked here, once
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "boot/bytes.h"

namespace caisson::boot {

struct ElfSegment {
  uint64_t physical = 0;
  uint64_t memory_size = 0;  // at least contents.size(); the rest is zero
  Bytes contents;
  uint64_t linked = 0;  // the address by which the kernel itself calls it
};

struct ElfImage {
  bool is_64bit = false;
  uint64_t entry = 0;
  std::vector<ElfSegment> segments;   // not empty, no address overflows, none overlaps another
  std::optional<uint32_t> pvh_entry;  // XEN_ELFNOTE_PHYS32_ENTRY
  uint64_t lowest = 0;                // of the segments' physical addresses
  uint64_t end = 0;
};

// The segments refer to `file`.
[[nodiscard]] Result<ElfImage> parse_elf(Bytes file);

}  // namespace caisson::boot
