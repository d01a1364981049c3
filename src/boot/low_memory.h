// The places below 640 KiB that a loader uses for what a kernel finds at its start, and how they are filled.
//   Threads  none; before the guest runs
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "boot/entry_point.h"
#include "memory/guest_memory.h"

namespace caisson::boot {

namespace low {
inline constexpr Gpa gdt = 0x1000, hvm_start_info = 0x6000, zero_page = 0x7000, stack_top = 0x9000, pml4 = 0x9000,
                     pdpt = 0xa000, page_directories = 0xb000, page_directories_end = 0xf000, command_line = 0x2'0000,
                     command_line_end = 0x3'0000;
}  // namespace low

// BIOS data area: base memory and the EBDA, which kernels look up there.
void write_bios_data(GuestMemory& memory);
// A flat GDT with Linux's __BOOT_CS (0x10), __BOOT_DS (0x18) and a TSS (0x20), and the entry state that goes with it.
void write_gdt(GuestMemory& memory, EntryPoint& entry);
// Page tables that map the first 4 GiB to themselves with 2 MiB pages.
void write_identity_map(GuestMemory& memory, EntryPoint& entry);
// `limit`: the longest command line the kernel takes, without the final zero.
[[nodiscard]] Result<> write_command_line(GuestMemory& memory, std::string_view command_line, uint64_t limit);

// Loader writes to fixed places that exist in any guest (1 MiB at least).
void put(GuestMemory& memory, Gpa gpa, std::span<const uint8_t> bytes);
template <class T>
void put_object(GuestMemory& memory, Gpa gpa, const T& object) {
  put(memory, gpa, {reinterpret_cast<const uint8_t*>(&object), sizeof object});
}

}  // namespace caisson::boot
