#include "boot/multiboot_boot.h"

#include <algorithm>
#include <string_view>

#include "boot/low_memory.h"
#include "boot/placement.h"
#include "x86/registers.h"

namespace caisson::boot {
namespace {

constexpr uint32_t loader_magic = 0x2bad'b002;
constexpr uint32_t has_memory = 1u << 0, has_command_line = 1u << 2, has_modules = 1u << 3, has_map = 1u << 6,
                   has_loader_name = 1u << 9;

// 3.3, as far as anything of it is told.
struct Information {
  uint32_t flags = has_memory | has_command_line | has_modules | has_map | has_loader_name;
  uint32_t mem_lower = 0;  // KiB from 0
  uint32_t mem_upper = 0;  // KiB from 1 MiB to the first hole
  uint32_t boot_device = 0;
  uint32_t cmdline = low::command_line;
  uint32_t mods_count = 0;
  uint32_t mods_addr = 0;
  uint32_t syms[4]{};
  uint32_t mmap_length = 0;
  uint32_t mmap_addr = 0;
  uint32_t drives_length = 0;
  uint32_t drives_addr = 0;
  uint32_t config_table = 0;
  uint32_t boot_loader_name = 0;
};
static_assert(sizeof(Information) == 68);

struct Module {
  uint32_t start = 0;
  uint32_t end = 0;
  uint32_t text = 0;
  uint32_t reserved = 0;
};

struct __attribute__((packed)) MapEntry {
  uint32_t size = sizeof(MapEntry) - 4;  // of what follows
  uint64_t base = 0;
  uint64_t length = 0;
  uint32_t type = 0;
};
static_assert(sizeof(MapEntry) == 24);

constexpr std::string_view loader_name{"Caisson\0", 8};
// The information has the place of PVH's; its fields for video stay free.
constexpr Gpa information_at = low::hvm_start_info, name_at = information_at + 0x80, module_at = name_at + 0x10,
              map_at = module_at + sizeof(Module);
constexpr size_t map_max = (information_at + page_size - map_at) / sizeof(MapEntry);
constexpr uint64_t longest_command_line = low::command_line_end - low::command_line - 1;

}  // namespace

Result<EntryPoint> load_multiboot(GuestMemory& memory, const MultibootImage& kernel, const LoadContext& context) {
  if (auto done = load_segments(memory, kernel.segments, kernel.lowest, kernel.end, context.low_end); !done) {
    return std::unexpected(done.error());
  }
  const auto module = load_module(memory, context.initrd,
                                  {.kernel_end = (kernel.end + page_size - 1) / page_size * page_size,
                                   .low_end = context.low_end,
                                   .preferred_end = context.low_end,
                                   .above_4g = false});
  if (!module) return with_context(context.initrd_name, module.error());
  if (auto done = write_command_line(memory, context.command_line, longest_command_line); !done) {
    return std::unexpected(done.error());
  }

  Information information;
  information.mem_lower = ebda_base >> 10;
  if (module->size != 0) {
    information.mods_count = 1;
    information.mods_addr = module_at;
    put_object(memory, module_at,
               Module{static_cast<uint32_t>(module->base), static_cast<uint32_t>(module->base + module->size), 0, 0});
  }
  const auto& ranges = context.map.ranges();
  const size_t count = std::min(ranges.size(), map_max);
  information.mmap_addr = map_at;
  information.mmap_length = static_cast<uint32_t>(count * sizeof(MapEntry));
  for (size_t i = 0; i < count; ++i) {
    MapEntry entry;
    entry.base = ranges[i].base;
    entry.length = ranges[i].size;
    entry.type = static_cast<uint32_t>(ranges[i].type);
    put_object(memory, map_at + i * sizeof entry, entry);
    if (entry.base == one_mib && ranges[i].type == MemoryType::Ram) {
      information.mem_upper = static_cast<uint32_t>(ranges[i].size >> 10);
    }
  }
  information.boot_loader_name = name_at;
  put(memory, name_at, {reinterpret_cast<const uint8_t*>(loader_name.data()), loader_name.size()});
  put_object(memory, information_at, information);

  EntryPoint entry;
  entry.mode = EntryPoint::Mode::Protected32;
  entry.rip = kernel.entry;
  entry.rax = loader_magic;
  entry.rbx = information_at;
  entry.cr0 = x86::cr0::pe | x86::cr0::et;
  write_bios_data(memory);
  write_gdt(memory, entry);
  return entry;
}

}  // namespace caisson::boot
