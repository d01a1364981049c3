#include "boot/multiboot_image.h"

#include <algorithm>
#include <utility>

namespace caisson::boot {
namespace {

constexpr uint32_t header_magic = 0x1bad'b002;
constexpr uint64_t header_reach = 8192, least_header = 12;
// 3.1.2: the lower half is what the kernel insists on. Modules lie on pages and memory is told in any case.
constexpr uint32_t pages = 1u << 0, memory = 1u << 1, video = 1u << 2, insists = 0xffff, has_addresses = 1u << 16;
enum Field : uint64_t {
  field_flags = 4,
  field_checksum = 8,
  field_header_address = 12,
  field_load_address = 16,
  field_load_end = 20,
  field_bss_end = 24,
  field_entry = 28,
  addresses_end = 32,
};
constexpr uint64_t address_space = uint64_t{1} << 32;

// 3.1.3
Result<MultibootImage> parse_addresses(Bytes file, uint64_t header) {
  if (!slice(file, header, addresses_end)) return fail("truncated Multiboot kernel: its header is cut; copy it again");
  const auto field = [&](Field at) -> uint64_t { return *read_le<uint32_t>(file, header + at); };
  const uint64_t load = field(field_load_address), place = field(field_header_address);
  if (load > place || place - load > header) {
    return fail("Multiboot kernel whose header is at {:#x} by its own account, where it cannot be", place);
  }
  const uint64_t from = header - (place - load);
  const uint64_t load_end = field(field_load_end) != 0 ? field(field_load_end) : load + (file.size() - from);
  const uint64_t end = std::max(field(field_bss_end), load_end);
  const auto contents = load_end < load ? std::nullopt : slice(file, from, load_end - load);
  if (!contents) {
    return fail("truncated Multiboot kernel: {} bytes, which is less than its header says; copy it again", file.size());
  }
  if (end > address_space) return fail("Multiboot kernel that ends at {:#x}, beyond 4 GiB", end);
  if (end == load) return fail("Multiboot kernel of no size");
  MultibootImage image;
  image.entry = static_cast<uint32_t>(field(field_entry));
  image.segments = {{load, end - load, *contents, load}};
  image.lowest = load;
  image.end = end;
  return image;
}

Result<MultibootImage> parse_segments(Bytes file) {
  auto elf = parse_elf(file);
  if (!elf) return std::unexpected(elf.error());
  if (elf->end > address_space) return fail("Multiboot kernel that ends at {:#x}, beyond 4 GiB", elf->end);
  MultibootImage image;
  // The entry is an address as the kernel sees it; it starts without paging.
  uint64_t entry = elf->entry;
  for (const ElfSegment& segment : elf->segments) {
    if (elf->entry - segment.linked >= segment.memory_size) continue;
    entry = elf->entry - segment.linked + segment.physical;
    break;
  }
  if (entry >= address_space) return fail("Multiboot kernel with its entry at {:#x}, beyond 4 GiB", entry);
  image.entry = static_cast<uint32_t>(entry);
  image.segments = std::move(elf->segments);
  image.lowest = elf->lowest;
  image.end = elf->end;
  return image;
}

}  // namespace

std::optional<uint64_t> find_multiboot(Bytes file) {
  const Bytes front = file.first(std::min<size_t>(file.size(), header_reach));
  for (uint64_t at = 0; at + least_header <= front.size(); at += 4) {
    if (read_le<uint32_t>(front, at) != header_magic) continue;
    const uint32_t flags = *read_le<uint32_t>(front, at + field_flags);
    if (header_magic + flags + *read_le<uint32_t>(front, at + field_checksum) == 0) return at;
  }
  return {};
}

Result<MultibootImage> parse_multiboot(Bytes file, uint64_t header) {
  const uint32_t flags = *read_le<uint32_t>(file, header + field_flags);
  if ((flags & video) != 0) {
    return fail(
        "a Multiboot kernel that wants a video mode, which only firmware can set; start it by GRUB from a disk");
  }
  if ((flags & insists & ~(pages | memory)) != 0) {
    return fail("a Multiboot kernel that wants what this loader does not know (flags {:#x})", flags);
  }
  if ((flags & has_addresses) != 0) return parse_addresses(file, header);
  if (!starts_with(file,
                   "\x7f"
                   "ELF"))
    return fail("a Multiboot kernel that is no ELF file and has no addresses");
  return parse_segments(file);
}

}  // namespace caisson::boot
