// New, empty qcow2 images.
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "backend/qcow2/header.h"
#include "base/result.h"

namespace caisson::qcow2 {

struct CreateOptions {
  uint64_t size = 0;                          // in bytes; a multiple of 512
  uint32_t version = 3;                       // 2 or 3
  unsigned cluster_bits = 16;                 // 9 to 21
  unsigned refcount_order = 4;                // 0 to 6; version 2: 4
  std::optional<std::string> backing_file{};  // as it shall be stored
  std::string backing_format{};               // "raw" or "qcow2", with a backing file
};

// `fd`: an empty file, open for writing.
[[nodiscard]] Result<> create(int fd, const CreateOptions& options);

}  // namespace caisson::qcow2
