// The content of one disk into another image, with holes where there are zeroes.
//   Threads  main thread
#pragma once

#include <functional>
#include <string>

#include "backend/disk_format.h"
#include "backend/qcow2/source.h"
#include "base/fd.h"
#include "base/result.h"

namespace caisson::cli {

struct CopyOptions {
  DiskFormat format = DiskFormat::Qcow2;  // of the new image
  unsigned cluster_bits = 16;             // qcow2
  std::function<void(uint64_t done, uint64_t total)> progress{};
};

// `to`: an empty file, open for reading and writing. Synced at the end.
[[nodiscard]] Result<> copy_disk(qcow2::Source& from, Fd to, const std::string& name, const CopyOptions& options);

}  // namespace caisson::cli
