#include "boot/smbios.h"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "boot/bytes.h"

namespace caisson::boot::smbios {

namespace {

constexpr uint16_t entry_64 = 0, entry_32 = 0x20, structures = 0x40;
constexpr size_t longest_string = 64;

// One structure: the formatted part (type, length, handle, fields), then its strings.
class Structure {
 public:
  Structure(uint8_t type, uint16_t handle) { u8(type).u8(0).u16(handle); }
  Structure& u8(uint8_t value) { return put(value); }
  Structure& u16(uint16_t value) { return put(value); }
  Structure& u32(uint32_t value) { return put(value); }
  Structure& u64(uint64_t value) { return put(value); }
  Structure& zeros(size_t count) {
    bytes_.insert(bytes_.end(), count, 0);
    return *this;
  }
  // A string's number, 1 for the first.
  Structure& text(std::string_view text) {
    std::string clean{text.empty() ? std::string_view{"Not Specified"} : text.substr(0, longest_string)};
    std::ranges::replace_if(
        clean, [](char c) { return c < ' ' || c > '~'; }, '?');
    strings_.push_back(std::move(clean));
    return put(static_cast<uint8_t>(strings_.size()));
  }

  void append_to(std::vector<uint8_t>& out) const {
    const size_t start = out.size();
    out.insert(out.end(), bytes_.begin(), bytes_.end());
    out[start + 1] = static_cast<uint8_t>(bytes_.size());
    for (const std::string& string : strings_) {
      out.insert(out.end(), string.begin(), string.end());
      out.push_back(0);
    }
    if (strings_.empty()) out.push_back(0);
    out.push_back(0);
  }

 private:
  template <class T>
  Structure& put(T value) {
    append_le(bytes_, value);
    return *this;
  }
  std::vector<uint8_t> bytes_;
  std::vector<std::string> strings_;
};

namespace handle {
constexpr uint16_t bios = 0, system = 0x100, chassis = 0x300, processor = 0x400, memory_array = 0x1000,
                   memory_device = 0x1100, memory_mapped = 0x1300, boot = 0x2000, end = 0x7f00, none = 0xfffe;
}

// 7.2.1: the first three fields of a UUID are little-endian here.
std::array<uint8_t, 16> mixed_endian(const std::array<uint8_t, 16>& uuid) {
  constexpr std::array<size_t, 16> order = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  std::array<uint8_t, 16> out;
  for (size_t i = 0; i < out.size(); ++i) out[i] = uuid[order[i]];
  return out;
}

Structure mapped_range(uint16_t number, Gpa first, Gpa last) {
  Structure range(19, handle::memory_mapped + number);
  const bool wide = last >> 10 >= UINT32_MAX;
  range.u32(wide ? UINT32_MAX : static_cast<uint32_t>(first >> 10))
      .u32(wide ? UINT32_MAX : static_cast<uint32_t>(last >> 10))
      .u16(handle::memory_array)
      .u8(1)
      .u64(wide ? first : 0)
      .u64(wide ? last : 0);
  return range;
}

std::vector<Structure> all_structures(const SmbiosConfig& config, const GuestMemory& memory) {
  constexpr uint8_t unknown = 2, other = 1, safe = 3;
  constexpr std::string_view vendor = "Caisson";
  std::vector<Structure> out;

  Structure bios(0, handle::bios);
  // Characteristics not supported (bit 3); extension byte 2: a virtual machine (bit 4), ACPI in byte 1 (bit 0).
  bios.text(vendor).text(config.version).u16(0xe000).text("01/01/2024").u8(0).u64(1u << 3).u8(1).u8(1u << 4);
  bios.u8(1).u8(0).u8(0xff).u8(0xff).u16(0);
  out.push_back(bios);

  Structure system(1, handle::system);
  system.text(vendor).text(config.product).text(config.version).text(config.serial);
  for (const uint8_t byte : mixed_endian(config.uuid)) system.u8(byte);
  system.u8(6 /* power switch */).text("").text("Virtual Machine");
  out.push_back(system);

  Structure chassis(3, handle::chassis);
  chassis.text(vendor).u8(other).text(config.version).text("").text("").u8(safe).u8(safe).u8(safe).u8(unknown);
  chassis.u32(0).u8(0).u8(1).u8(0).u8(0).text("");
  out.push_back(chassis);

  Structure processor(4, handle::processor);
  const uint8_t cores = static_cast<uint8_t>(std::min(config.cpus, 255u));
  const uint16_t mhz = static_cast<uint16_t>(std::min(config.cpu_mhz, 0xffffu));
  const uint16_t all_cores = static_cast<uint16_t>(config.cpus);
  processor.text("CPU 0")
      .u8(3 /* central */)
      .u8(unknown)
      .text(vendor)
      .u32(config.cpu_signature)
      .u32(config.cpu_features);
  processor.text(config.cpu_brand).u8(0).u16(0).u16(mhz).u16(mhz).u8(0x41 /* enabled, populated */).u8(other);
  processor.u16(0xffff).u16(0xffff).u16(0xffff).text("").text("").text("").u8(cores).u8(cores).u8(cores);
  processor.u16(1u << 2 | 1u << 3 /* 64-bit, multi-core */).u16(unknown).u16(all_cores).u16(all_cores).u16(all_cores);
  out.push_back(processor);

  const uint64_t kib = memory.size() >> 10;
  Structure array(16, handle::memory_array);
  array.u8(other).u8(3 /* system memory */).u8(6 /* multi-bit ECC */);
  array.u32(kib < 0x8000'0000 ? static_cast<uint32_t>(kib) : 0x8000'0000).u16(handle::none).u16(1);
  array.u64(kib < 0x8000'0000 ? 0 : memory.size());
  out.push_back(array);

  const uint64_t mib = std::max<uint64_t>(memory.size() >> 20, 1);
  Structure device(17, handle::memory_device);
  device.u16(handle::memory_array).u16(handle::none).u16(64).u16(64);
  device.u16(mib < 0x7fff ? static_cast<uint16_t>(mib) : 0x7fff).u8(9 /* DIMM */).u8(0).text("DIMM 0").text("");
  device.u8(7 /* RAM */).u16(1u << 1 /* other */).u16(0).text(vendor).text("").text("").text("").u8(0);
  device.u32(mib < 0x7fff ? 0 : static_cast<uint32_t>(mib)).u16(0).u16(0).u16(0).u16(0);
  out.push_back(device);

  out.push_back(mapped_range(0, 0, memory.low_size() - 1));
  if (memory.high_size() != 0) out.push_back(mapped_range(1, GuestMemory::high_start, memory.end() - 1));

  Structure boot(32, handle::boot);
  boot.zeros(6).u8(0 /* no errors */);
  out.push_back(boot);
  out.emplace_back(127, handle::end);
  return out;
}

uint8_t checksum(Bytes bytes) { return static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0)); }

}  // namespace

namespace {

std::vector<uint8_t> structure_bytes(const std::vector<Structure>& all, size_t& largest) {
  std::vector<uint8_t> body;
  largest = 0;
  for (const Structure& structure : all) {
    const size_t before = body.size();
    structure.append_to(body);
    largest = std::max(largest, body.size() - before);
  }
  return body;
}

// 5.2.1
std::vector<uint8_t> narrow_entry(size_t largest, size_t size, size_t count, uint32_t at) {
  std::vector<uint8_t> narrow = {'_', 'S', 'M', '_', 0, 0x1f, 2, 8};
  append_le(narrow, static_cast<uint16_t>(largest));
  narrow.insert(narrow.end(), 6, 0);
  std::vector<uint8_t> intermediate = {'_', 'D', 'M', 'I', '_', 0};
  append_le(intermediate, static_cast<uint16_t>(size));
  append_le(intermediate, at);
  append_le(intermediate, static_cast<uint16_t>(count));
  append_le<uint8_t>(intermediate, 0x28);
  intermediate[5] = checksum(intermediate);
  narrow.insert(narrow.end(), intermediate.begin(), intermediate.end());
  narrow[4] = checksum(narrow);
  return narrow;
}

}  // namespace

std::vector<uint8_t> build(const SmbiosConfig& config, const GuestMemory& memory) {
  const auto all = all_structures(config, memory);
  size_t largest = 0;
  const std::vector<uint8_t> body = structure_bytes(all, largest);

  std::vector<uint8_t> wide = {'_', 'S', 'M', '3', '_', 0, 0x18, 3, 0, 0, 1, 0};  // 5.2.2
  append_le(wide, static_cast<uint32_t>(body.size()));
  append_le<uint64_t>(wide, address + structures);
  wide[5] = checksum(wide);
  const std::vector<uint8_t> narrow =
      narrow_entry(largest, body.size(), all.size(), static_cast<uint32_t>(address + structures));

  std::vector<uint8_t> out(structures);
  std::ranges::copy(wide, out.begin() + entry_64);
  std::ranges::copy(narrow, out.begin() + entry_32);
  out.insert(out.end(), body.begin(), body.end());
  return out;
}

Pieces pieces(const SmbiosConfig& config, const GuestMemory& memory) {
  const auto all = all_structures(config, memory);
  size_t largest = 0;
  Pieces out;
  out.tables = structure_bytes(all, largest);
  out.anchor = narrow_entry(largest, out.tables.size(), all.size(), 0);
  return out;
}

}  // namespace caisson::boot::smbios
