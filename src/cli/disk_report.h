// What `caisson disk` says about an image: info, check, map.
//   Threads  main thread
#pragma once

#include <optional>
#include <string>

#include "backend/disk_chain.h"

namespace caisson::cli {

// Each prints to standard output, as JSON or for people; gives the exit status.
[[nodiscard]] int disk_info(const std::string& path, std::optional<DiskFormat> format, bool json);
// 0: clean, or mended; 1: damaged, or could not look; 3: nothing wrong but clusters that are lost
[[nodiscard]] int disk_check(const std::string& path, std::optional<DiskFormat> format, bool repair, bool json);
[[nodiscard]] int disk_map(const std::string& path, const ChainOptions& options, const std::string& snapshot,
                           bool json);

// Prints the error as `json` wants it; gives the exit status.
[[nodiscard]] int report_disk_error(const Error& error, bool json, int status);

}  // namespace caisson::cli
