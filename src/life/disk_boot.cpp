#include "life/disk_boot.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <vector>

namespace caisson::life {
namespace {

constexpr size_t sector = 512;
using Sector = std::array<uint8_t, sector>;

template <class T>
T little(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);  // the host is little-endian, as these tables are
  return value;
}

// UEFI 2.10, 5.3: the header in the second sector, entries where it says.
constexpr std::string_view gpt_signature = "EFI PART";
constexpr size_t at_entries = 72, at_count = 80, at_entry_size = 84;
constexpr uint32_t most_entries = 1024, most_entry_size = 4096;
// 5.3.3 and table 5-6: the type of an EFI system partition, c12a7328-f81f-11d2-ba4b-00a0c93ec93b, as it lies on the
// disk.
constexpr std::array<uint8_t, 16> system_partition{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11,
                                                   0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b};

bool gpt_has_system_partition(const ReadDisk& read) {
  Sector header;
  if (!read(sector, header) || std::memcmp(header.data(), gpt_signature.data(), gpt_signature.size()) != 0)
    return false;
  const auto first = little<uint64_t>(&header[at_entries]);
  const auto count = std::min(little<uint32_t>(&header[at_count]), most_entries);
  const auto size = little<uint32_t>(&header[at_entry_size]);
  if (size < 128 || size > most_entry_size || first > (uint64_t{1} << 50)) return false;
  std::vector<uint8_t> entry(size);
  for (uint32_t index = 0; index < count; ++index) {
    if (!read(first * sector + uint64_t{index} * size, entry)) return false;
    if (std::equal(system_partition.begin(), system_partition.end(), entry.begin())) return true;
  }
  return false;
}

}  // namespace

std::optional<BootBy> boot_of_disk(const ReadDisk& read) {
  Sector first;
  if (!read(0, first)) return std::nullopt;
  constexpr size_t code_size = 440, at_partitions = 446, partition_size = 16, at_type = 4;
  const bool boot_sector = first[510] == 0x55 && first[511] == 0xaa;
  if (!boot_sector) return std::nullopt;
  const bool code = std::any_of(first.begin(), first.begin() + code_size, [](uint8_t byte) { return byte != 0; });
  if (code) return BootBy::Bios;
  for (size_t index = 0; index < 4; ++index) {
    const uint8_t type = first[at_partitions + index * partition_size + at_type];
    // 5.2.2: ef is a system partition, ee says that there is a GPT.
    if (type == 0xef || (type == 0xee && gpt_has_system_partition(read))) return BootBy::Uefi;
  }
  return std::nullopt;
}

}  // namespace caisson::life
