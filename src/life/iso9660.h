// Small discs: an ISO 9660 file system of a few files in one folder, with their real names by Rock Ridge.
//   Manual   ECMA-119 (2nd edition); SUSP 1.12 (IEEE P1281) and RRIP 1.12 (IEEE P1282) for names
//   Bounds   the folder is one sector of 2048 bytes: at most max_iso_files
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::life {

struct IsoFile {
  std::string name;     // 1 to 64 of what a file's name may have
  std::string content;  // bytes
};
inline constexpr size_t max_iso_files = 8;
inline constexpr size_t max_iso_bytes = 64 << 20;  // of all contents

// `label`: 1 to 32 capital letters, digits and '_'. `made_ms`: UTC, since 1970.
[[nodiscard]] Result<std::string> make_iso(std::string_view label, const std::vector<IsoFile>& files, uint64_t made_ms);

}  // namespace caisson::life
