// A disk image with the files that it is based on: opened by path with every check, or put together from descriptors.
//   Checks   a backing file is opened only where it lies below an allowed folder, after all links are followed: that of
//            the image itself (not of a backing file), or one of `backing_folders`; no chain is longer than
//            most_layers, none comes back to a file it has passed
//   Threads  pure functions
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/disk_file.h"
#include "backend/disk_format.h"
#include "backend/qcow2/image.h"
#include "base/result.h"

namespace caisson {

inline constexpr size_t most_layers = 16;

struct ChainOptions {
  bool read_only = false;
  std::optional<DiskFormat> format{};  // of the image; none: by its name
  std::vector<std::string> backing_folders{};
  bool without_backing = false;  // the image alone
  bool unlocked = false;         // see open_disk(); with read_only and without_backing
};

// The image first, then its backing file, and so on. Backing files are opened read-only, and locked so.
[[nodiscard]] Result<std::vector<DiskFile>> open_chain(const std::string& path, const ChainOptions& options);

struct DiskLayer {
  Fd fd;
  DiskFormat format = DiskFormat::Raw;
  std::string name;  // for messages
};

// What lies below an image: `layers` are its backing file, that one's, …; null where there are none.
[[nodiscard]] Result<std::unique_ptr<qcow2::Source>> assemble_backing(std::vector<DiskLayer> layers);

// All of a chain for reading; `snapshot`: an internal one of the image instead of the disk.
[[nodiscard]] Result<std::unique_ptr<qcow2::Source>> assemble(std::vector<DiskFile> chain,
                                                              const std::string& snapshot = {});
// All of a chain whose first layer is a qcow2 image.
[[nodiscard]] Result<std::unique_ptr<qcow2::Image>> assemble_image(std::vector<DiskFile> chain,
                                                                   qcow2::OpenOptions options);

}  // namespace caisson
