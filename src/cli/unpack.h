// Unpacks disks that were packed by gzip, xz or zstd, into a file with holes where there are zeroes.
//   Bounds   what comes out, and the memory it takes: a small file that would become a huge one ends with an error
//   Threads  main thread
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "base/result.h"

namespace caisson::cli {

struct UnpackOptions {
  uint64_t most_bytes = 0;                                        // that may come out
  std::function<void(uint64_t done, uint64_t total)> progress{};  // bytes of the packed file
};

// `kind`: "gz", "xz", "zst". `to`: an empty file. Synced at the end. What follows the packed content is an error.
[[nodiscard]] Result<> unpack(int from, std::string_view kind, int to, const UnpackOptions& options);

}  // namespace caisson::cli
