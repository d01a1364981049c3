// Opens a disk image or block device by path, with every check, and locks it against double use.
//   Used by  the command line, which hands the descriptor to the VMM: the lock goes with it (an open file description
//   lock
//            lasts until the last copy of the descriptor is closed)
//   Lock     exclusive for a writable disk, shared for a read-only one; kept by fcntl F_OFD_SETLK, see fcntl(2)
//   Threads  none of its own
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "backend/disk_format.h"
#include "base/fd.h"
#include "base/result.h"

namespace caisson {

struct DiskFile {
  Fd fd;
  std::string path;
  uint64_t size = 0;  // in bytes, as the host counts them
  bool read_only = false;
  bool block_device = false;
  DiskFormat format = DiskFormat::Raw;
};

// `format`: what the user says, else what the name says; a file that begins like an image of another format and is not
// said to be raw is refused.
// `unlocked`: only to look at what does not change while a machine runs, read-only.
[[nodiscard]] Result<DiskFile> open_disk(const std::string& path, bool read_only,
                                         std::optional<DiskFormat> format = std::nullopt, bool unlocked = false);

}  // namespace caisson
