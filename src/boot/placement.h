// Where the big pieces go: a simple account of what is taken in RAM, so that nothing is loaded over something else.
//   Threads  none
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"
#include "boot/elf.h"
#include "memory/guest_memory.h"

namespace caisson::boot {

struct InitrdPlace {
  Gpa base = 0;
  uint64_t size = 0;
};

// Highest page-aligned place for `size` bytes within [lowest, end), or nothing.
[[nodiscard]] std::optional<Gpa> place_high(uint64_t size, Gpa lowest, Gpa end);

struct InitrdLimits {
  Gpa kernel_end = 0;     // the ramdisk lies above the kernel …
  Gpa low_end = 0;        // … and below this, in low RAM
  Gpa preferred_end = 0;  // the kernel would like it below this address (initrd_addr_max + 1)
  bool above_4g = false;  // it may lie anywhere
};

// Reads the open file to the highest place that the limits allow and checks what it is. {0, 0} for fd < 0.
[[nodiscard]] Result<InitrdPlace> load_initrd(GuestMemory& memory, int fd, const InitrdLimits& limits);

// The same for a file of any kind, which the kernel knows what to do with.
[[nodiscard]] Result<InitrdPlace> load_module(GuestMemory& memory, int fd, const InitrdLimits& limits);

// Copies and zeroes so that [base, base + memory_size) holds `contents` and then zeros.
[[nodiscard]] Result<> load_bytes(GuestMemory& memory, Gpa base, std::span<const uint8_t> contents,
                                  uint64_t memory_size);

// The segments of a kernel that lies in [lowest, end): an error where that is not in low RAM above 1 MiB.
[[nodiscard]] Result<> load_segments(GuestMemory& memory, std::span<const ElfSegment> segments, Gpa lowest, Gpa end,
                                     Gpa low_end);

}  // namespace caisson::boot
