#include "boot/low_memory.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/check.h"
#include "boot/memory_map.h"
#include "x86/registers.h"

namespace caisson::boot {

namespace {

// Descriptor (Intel SDM vol. 3, 3.4.5) of a flat 4 GiB segment, base 0: limit 0xfffff, G, and the given flags.
constexpr uint64_t flat_descriptor(uint32_t attributes) {
  return 0x000f'0000'0000'ffff | uint64_t{attributes & 0xf0ff} << 40;
}

// Type, S, P, then AVL, L, D/B, G in bits 12 to 15.
constexpr uint32_t code64 = 0xa09b, code32 = 0xc09b, data32 = 0xc093, busy_tss = 0x8b;

}  // namespace

void put(GuestMemory& memory, Gpa gpa, std::span<const uint8_t> bytes) { CAISSON_CHECK(memory.write(gpa, bytes)); }

void write_bios_data(GuestMemory& memory) {
  put_object(memory, 0x40e, static_cast<uint16_t>(ebda_base >> 4));   // segment of the EBDA
  put_object(memory, 0x413, static_cast<uint16_t>(ebda_base >> 10));  // KiB of base memory
  put_object(memory, ebda_base, uint8_t{1});                          // the EBDA's size in KiB
}

void write_gdt(GuestMemory& memory, EntryPoint& entry) {
  const uint32_t code = entry.mode == EntryPoint::Mode::Long64 ? code64 : code32;
  // The 64-bit TSS descriptor has 16 bytes; this one has base 0 and limit 0x67.
  const std::array<uint64_t, 6> gdt = {
      0, 0, flat_descriptor(code), flat_descriptor(data32), uint64_t{busy_tss} << 40 | 0x67, 0};
  put_object(memory, low::gdt, gdt);
  entry.gdt_base = low::gdt;
  entry.gdt_limit = sizeof gdt - 1;
  entry.code = {0x10, 0, 0xffff'ffff, code};
  entry.data = {0x18, 0, 0xffff'ffff, data32};
  entry.task = {0x20, 0, 0x67, busy_tss};
}

void write_identity_map(GuestMemory& memory, EntryPoint& entry) {
  constexpr uint64_t present = 1, writable = 2, accessed = 1u << 5, dirty = 1u << 6, large = 1u << 7;
  constexpr uint64_t entries = 512, directories = 4;
  std::vector<uint64_t> page(entries);
  page[0] = low::pdpt | present | writable | accessed;
  const auto write_page = [&](Gpa at) { put(memory, at, {reinterpret_cast<uint8_t*>(page.data()), page_size}); };
  write_page(low::pml4);
  for (uint64_t i = 0; i < directories; ++i) {
    page[i] = (low::page_directories + i * page_size) | present | writable | accessed;
  }
  write_page(low::pdpt);
  for (uint64_t i = 0; i < directories; ++i) {
    for (uint64_t j = 0; j < entries; ++j) {
      page[j] = (i * entries + j) << 21 | present | writable | accessed | dirty | large;
    }
    write_page(low::page_directories + i * page_size);
  }
  entry.cr0 = x86::cr0::pe | x86::cr0::et | x86::cr0::ne | x86::cr0::pg;
  entry.cr3 = low::pml4;
  entry.cr4 = x86::cr4::pae;
  entry.efer = x86::efer::lme | x86::efer::lma;
}

Result<> write_command_line(GuestMemory& memory, std::string_view command_line, uint64_t limit) {
  limit = std::min<uint64_t>(limit, low::command_line_end - low::command_line - 1);
  if (command_line.size() > limit) {
    return fail("the kernel's command line has {} bytes, this kernel takes at most {}; shorten --append",
                command_line.size(), limit);
  }
  if (command_line.find('\0') != std::string_view::npos) return fail("the kernel's command line has a zero byte in it");
  std::vector<uint8_t> bytes(command_line.begin(), command_line.end());
  bytes.push_back(0);
  put(memory, low::command_line, bytes);
  return {};
}

}  // namespace caisson::boot
