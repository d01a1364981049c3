#include "life/tar.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

namespace caisson::life {
namespace {

// Where a header's fields are, and how long.
struct Field {
  size_t at, size;
};
constexpr Field name_field{0, 100}, mode_field{100, 8}, uid_field{108, 8}, gid_field{116, 8}, size_field{124, 12},
    time_field{136, 12}, sum_field{148, 8}, type_field{156, 1}, magic_field{257, 6}, version_field{263, 2},
    prefix_field{345, 155};
constexpr uint64_t most_size = uint64_t{1} << 62;

// Octal digits and a zero; what does not fit as a big-endian number with the first bit set.
void put_number(TarBlock& block, Field field, uint64_t value) {
  if (value < uint64_t{1} << (3 * (field.size - 1))) {
    const std::string text = fmt::format("{:0{}o}", value, field.size - 1);
    std::memcpy(&block[field.at], text.data(), text.size());
    return;
  }
  block[field.at] = 0x80;
  for (size_t index = field.size - 1; index > 0; --index, value >>= 8) {
    block[field.at + index] = static_cast<uint8_t>(value);
  }
}

std::optional<uint64_t> number(std::span<const uint8_t, tar_block> block, Field field) {
  uint64_t value = 0;
  if (block[field.at] == 0x80) {
    for (size_t index = 1; index < field.size; ++index) {
      if (value >> 54 != 0) return std::nullopt;
      value = value << 8 | block[field.at + index];
    }
    return value;
  }
  size_t index = 0;
  while (index < field.size && block[field.at + index] == ' ') ++index;
  const size_t start = index;
  for (; index < field.size; ++index) {
    const uint8_t byte = block[field.at + index];
    if (byte < '0' || byte > '7') break;
    value = value << 3 | (byte - '0');
  }
  const bool ended = index == field.size || block[field.at + index] == 0 || block[field.at + index] == ' ';
  if (index == start || !ended) return std::nullopt;
  return value;
}

std::string text(std::span<const uint8_t, tar_block> block, Field field) {
  const auto* const from = reinterpret_cast<const char*>(&block[field.at]);
  return {from, ::strnlen(from, field.size)};
}

// As if the checksum's own field held spaces.
uint64_t checksum(std::span<const uint8_t, tar_block> block) {
  uint64_t sum = 0;
  for (size_t index = 0; index < tar_block; ++index) {
    const bool own = index >= sum_field.at && index < sum_field.at + sum_field.size;
    sum += own ? uint8_t{' '} : block[index];
  }
  return sum;
}

}  // namespace

TarBlock tar_header(std::string_view name, uint64_t size, uint64_t modified_s) {
  TarBlock block{};
  std::memcpy(block.data(), name.data(), std::min(name.size(), name_field.size - 1));
  put_number(block, mode_field, 0600);
  put_number(block, uid_field, 0);
  put_number(block, gid_field, 0);
  put_number(block, size_field, size);
  put_number(block, time_field, modified_s);
  block[type_field.at] = '0';
  std::memcpy(&block[magic_field.at], "ustar", 6);
  std::memcpy(&block[version_field.at], "00", 2);
  // Six digits, a zero and a space, as every tar since the first writes it.
  const std::string sum = fmt::format("{:06o}", checksum(block));
  std::memcpy(&block[sum_field.at], sum.data(), 6);
  block[sum_field.at + 7] = ' ';
  return block;
}

Result<std::optional<TarEntry>> parse_tar_header(std::span<const uint8_t, tar_block> block) {
  if (std::ranges::all_of(block, [](uint8_t byte) { return byte == 0; })) return std::nullopt;
  const auto sum = number(block, sum_field);
  if (!sum || *sum != checksum(block)) return fail("it is no tar archive, or damaged");
  const auto size = number(block, size_field);
  if (!size || *size > most_size) return fail("the archive has an entry without a size");
  TarEntry entry{text(block, name_field), *size};
  const bool ustar = std::memcmp(&block[magic_field.at], "ustar", 5) == 0;
  if (ustar && block[prefix_field.at] != 0) entry.name = text(block, prefix_field) + "/" + entry.name;
  while (entry.name.starts_with("./")) entry.name.erase(0, 2);
  const uint8_t type = block[type_field.at];
  if (type == '5') return TarEntry{"", 0};
  if (type != '0' && type != 0) {
    return fail("the archive has an entry that is neither file nor folder; pack it again with: tar --format=ustar");
  }
  if (entry.name.empty() || entry.name.find('/') != std::string::npos) {
    return fail("the archive has a file in a folder; an image's files have none");
  }
  return entry;
}

}  // namespace caisson::life
