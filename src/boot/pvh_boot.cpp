#include "boot/pvh_boot.h"

#include <algorithm>

#include "boot/low_memory.h"
#include "boot/placement.h"
#include "x86/registers.h"

namespace caisson::boot {

namespace {

constexpr uint32_t start_magic = 0x336e'c578;

struct StartInfo {
  uint32_t magic = start_magic;
  uint32_t version = 1;
  uint32_t flags = 0;
  uint32_t nr_modules = 0;
  uint64_t modlist_paddr = 0;
  uint64_t cmdline_paddr = 0;
  uint64_t rsdp_paddr = 0;
  uint64_t memmap_paddr = 0;
  uint32_t memmap_entries = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct Module {
  uint64_t paddr = 0;
  uint64_t size = 0;
  uint64_t cmdline_paddr = 0;
  uint64_t reserved = 0;
};

struct MapEntry {
  uint64_t addr = 0;
  uint64_t size = 0;
  uint32_t type = 0;
  uint32_t reserved = 0;
};

constexpr Gpa module_at = low::hvm_start_info + sizeof(StartInfo), map_at = module_at + sizeof(Module);
constexpr size_t map_max = (low::hvm_start_info + page_size - map_at) / sizeof(MapEntry);
constexpr uint64_t longest_command_line = low::command_line_end - low::command_line - 1;

}  // namespace

Result<EntryPoint> load_pvh(GuestMemory& memory, const ElfImage& kernel, const LoadContext& context) {
  if (auto done = load_segments(memory, kernel.segments, kernel.lowest, kernel.end, context.low_end); !done) {
    return std::unexpected(done.error());
  }
  // All addresses below 4 GiB: the kernel starts without paging.
  const InitrdLimits limits{.kernel_end = (kernel.end + page_size - 1) / page_size * page_size,
                            .low_end = context.low_end,
                            .preferred_end = context.low_end,
                            .above_4g = false};
  const auto initrd = load_initrd(memory, context.initrd, limits);
  if (!initrd) return with_context(context.initrd_name, initrd.error());
  if (auto done = write_command_line(memory, context.command_line, longest_command_line); !done) {
    return std::unexpected(done.error());
  }

  StartInfo info;
  info.cmdline_paddr = low::command_line;
  info.rsdp_paddr = context.rsdp;
  if (initrd->size != 0) {
    info.nr_modules = 1;
    info.modlist_paddr = module_at;
    put_object(memory, module_at, Module{initrd->base, initrd->size, 0, 0});
  }
  const auto& ranges = context.map.ranges();
  info.memmap_paddr = map_at;
  info.memmap_entries = static_cast<uint32_t>(std::min(ranges.size(), map_max));
  for (size_t i = 0; i < info.memmap_entries; ++i) {
    put_object(memory, map_at + i * sizeof(MapEntry),
               MapEntry{ranges[i].base, ranges[i].size, static_cast<uint32_t>(ranges[i].type), 0});
  }
  put_object(memory, low::hvm_start_info, info);

  EntryPoint entry;
  entry.mode = EntryPoint::Mode::Protected32;
  entry.rip = *kernel.pvh_entry;
  entry.rbx = low::hvm_start_info;
  entry.cr0 = x86::cr0::pe | x86::cr0::et;
  write_bios_data(memory);
  write_gdt(memory, entry);
  return entry;
}

}  // namespace caisson::boot
