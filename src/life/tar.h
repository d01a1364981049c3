// Headers of tar archives, for images with all their files in one: plain files and folders only.
//   Manual   POSIX.1-2017, pax, "ustar Interchange Format"; sizes of 8 GiB and more as GNU tar writes them (base 256)
//   Checks   the checksum, every number's bounds, and that a name leads nowhere else
//   Threads  pure functions
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::life {

inline constexpr size_t tar_block = 512;  // bytes; headers have one, contents are padded to whole ones
using TarBlock = std::array<uint8_t, tar_block>;

struct TarEntry {
  std::string name;   // without "./" in front; empty: a folder, which has no content
  uint64_t size = 0;  // bytes
};

// `name`: at most 99 bytes. `modified_s`: since 1970.
[[nodiscard]] TarBlock tar_header(std::string_view name, uint64_t size, uint64_t modified_s);
// None: the block of zeroes that is the archive's end.
[[nodiscard]] Result<std::optional<TarEntry>> parse_tar_header(std::span<const uint8_t, tar_block> block);

}  // namespace caisson::life
