#include "boot/linux_boot.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/log.h"
#include "boot/low_memory.h"
#include "boot/placement.h"
#include "boot/unpack.h"

namespace caisson::boot {

namespace {

// Offsets in the zero page (struct boot_params).
namespace zero_page {
constexpr size_t acpi_rsdp_addr = 0x70, ext_ramdisk_image = 0xc0, ext_ramdisk_size = 0xc4, alt_mem_k = 0x1e0,
                 e820_entries = 0x1e8, e820_table = 0x2d0, e820_max = 128, e820_entry_size = 20, size = 4096;
}

// Offsets in the zero page's screen_info (Linux include/uapi/linux/screen_info.h).
namespace screen_info {
constexpr size_t video_type = 0x0f, lfb_width = 0x12, lfb_height = 0x14, lfb_depth = 0x16, lfb_base = 0x18,
                 lfb_size = 0x1c, lfb_line_length = 0x24, colours = 0x26, capabilities = 0x36, ext_lfb_base = 0x3a;
// Linux's drivers take a frame buffer of this type whoever set it up; that of VESA needs one that cloud kernels lack.
constexpr uint8_t type_efi = 0x70;
constexpr uint32_t base_64bit = 1u << 1;
// Size and position in bits of red, green, blue and the rest.
constexpr std::array<uint8_t, 8> xrgb{8, 16, 8, 8, 8, 0, 8, 24};
}  // namespace screen_info

constexpr uint8_t loader_undefined = 0xff;
constexpr uint16_t vid_mode_normal = 0xffff;
constexpr uint8_t kaslr_flag = 1u << 1, can_use_heap = 1u << 7;
constexpr Gpa entry_64 = 0x200;  // of the body
constexpr uint64_t most_unpacked = uint64_t{1} << 30;

class ZeroPage {
 public:
  template <class T>
  void put(size_t offset, T value) {
    std::memcpy(bytes_.data() + offset, &value, sizeof value);
  }
  [[nodiscard]] uint8_t& byte(size_t offset) { return bytes_[offset]; }
  [[nodiscard]] std::span<uint8_t> bytes() { return bytes_; }

 private:
  std::array<uint8_t, zero_page::size> bytes_{};
};

void fill_zero_page(ZeroPage& page, const BzImage& kernel, const LoadContext& context, const InitrdPlace& initrd,
                    uint64_t low_size) {
  std::ranges::copy(kernel.header, page.bytes().begin() + setup::setup_sects);
  page.put(setup::vid_mode, vid_mode_normal);
  page.put(setup::type_of_loader, loader_undefined);
  page.byte(setup::loadflags) &= static_cast<uint8_t>(~(kaslr_flag | can_use_heap));
  page.put(setup::ramdisk_image, static_cast<uint32_t>(initrd.base));
  page.put(setup::ramdisk_size, static_cast<uint32_t>(initrd.size));
  page.put(zero_page::ext_ramdisk_image, static_cast<uint32_t>(initrd.base >> 32));
  page.put(zero_page::ext_ramdisk_size, static_cast<uint32_t>(initrd.size >> 32));
  page.put(setup::cmd_line_ptr, static_cast<uint32_t>(low::command_line));
  page.put(setup::setup_data, uint64_t{0});  // the file's value would be a pointer into nowhere
  page.put(zero_page::acpi_rsdp_addr, context.rsdp);
  page.put(zero_page::alt_mem_k, static_cast<uint32_t>((low_size - one_mib) >> 10));
  const auto& ranges = context.map.ranges();
  const size_t count = std::min(ranges.size(), zero_page::e820_max);
  page.put(zero_page::e820_entries, static_cast<uint8_t>(count));
  for (size_t i = 0; i < count; ++i) {
    const size_t at = zero_page::e820_table + i * zero_page::e820_entry_size;
    page.put(at, ranges[i].base);
    page.put(at + 8, ranges[i].size);
    page.put(at + 16, static_cast<uint32_t>(ranges[i].type));
  }
}

void fill_screen(ZeroPage& page, const FrameBuffer& screen) {
  constexpr uint32_t pixel_bytes = 4;
  page.put(screen_info::video_type, screen_info::type_efi);
  page.put(screen_info::lfb_width, screen.width);
  page.put(screen_info::lfb_height, screen.height);
  page.put(screen_info::lfb_depth, uint16_t{8 * pixel_bytes});
  page.put(screen_info::lfb_base, static_cast<uint32_t>(screen.base));
  page.put(screen_info::ext_lfb_base, static_cast<uint32_t>(screen.base >> 32));
  page.put(screen_info::lfb_size, pixel_bytes * screen.width * screen.height);
  page.put(screen_info::lfb_line_length, static_cast<uint16_t>(pixel_bytes * screen.width));
  page.put(screen_info::colours, screen_info::xrgb);
  if (screen.base >> 32 != 0) page.put(screen_info::capabilities, screen_info::base_64bit);
}

struct Loaded {
  Gpa entry = 0;
  Gpa end = 0;  // first byte after the kernel
};

// Loads the kernel inside the bzImage to its own addresses. An error means: let the guest unpack.
Result<Loaded> load_unpacked(GuestMemory& memory, const BzImage& kernel, Gpa low_end) {
  if (kernel.payload.empty()) return fail("no payload");
  const auto vmlinux = boot::unpack(kernel.payload, std::min(most_unpacked, memory.size()));
  if (!vmlinux) return std::unexpected(vmlinux.error());
  const auto elf = parse_elf(*vmlinux);
  if (!elf) return std::unexpected(elf.error());
  if (!elf->is_64bit || elf->lowest < one_mib || elf->end > low_end || elf->entry < elf->lowest ||
      elf->entry >= elf->end) {
    return fail("the unpacked kernel has no usable addresses");
  }
  for (const ElfSegment& segment : elf->segments) {
    if (auto done = load_bytes(memory, segment.physical, segment.contents, segment.memory_size); !done) {
      return std::unexpected(done.error());
    }
  }
  return Loaded{elf->entry, elf->end};
}

// Loads the bzImage's body where the kernel prefers it; it moves itself from there as it likes.
Result<Loaded> load_packed(GuestMemory& memory, const BzImage& kernel, Gpa low_end) {
  if (auto done = load_bytes(memory, kernel.pref_address, kernel.protected_mode, kernel.protected_mode.size()); !done) {
    return std::unexpected(done.error());
  }
  return Loaded{kernel.pref_address + entry_64, std::min(kernel.pref_address + kernel.init_size, low_end)};
}

}  // namespace

Result<EntryPoint> load_linux(GuestMemory& memory, const BzImage& kernel, Unpack unpack, const LoadContext& context) {
  // The kernel runs at pref_address in either case, and says how much it needs from there on before it knows of memory.
  const Gpa needed = kernel.pref_address + kernel.init_size;
  if (needed > context.low_end) {
    return fail("{} MiB of memory are too little for this kernel, which needs {} MiB to start; give more --memory",
                memory.size() >> 20, (needed >> 20) + 1);
  }
  Result<Loaded> loaded = std::unexpected(Error{});
  if (unpack == Unpack::Host) {
    loaded = load_unpacked(memory, kernel, context.low_end);
    if (!loaded) log::debug("the kernel unpacks itself in the guest: {}", loaded.error().message);
  }
  if (!loaded) loaded = load_packed(memory, kernel, context.low_end);
  if (!loaded) return std::unexpected(loaded.error());

  const InitrdLimits limits{.kernel_end = std::max(loaded->end, needed),
                            .low_end = context.low_end,
                            .preferred_end = Gpa{kernel.initrd_addr_max} + 1,
                            .above_4g = kernel.above_4g};
  const auto initrd = load_initrd(memory, context.initrd, limits);
  if (!initrd) return with_context(context.initrd_name, initrd.error());
  if (auto done = write_command_line(memory, context.command_line, kernel.cmdline_size); !done) {
    return std::unexpected(done.error());
  }
  ZeroPage page;
  fill_zero_page(page, kernel, context, *initrd, memory.low_size());
  if (context.screen) fill_screen(page, *context.screen);
  put(memory, low::zero_page, page.bytes());

  EntryPoint entry;
  entry.mode = EntryPoint::Mode::Long64;
  entry.rip = loaded->entry;
  entry.rsi = low::zero_page;
  entry.rsp = low::stack_top;
  write_bios_data(memory);
  write_gdt(memory, entry);
  write_identity_map(memory, entry);
  return entry;
}

}  // namespace caisson::boot
