// What starts the system on a disk: a boot sector with code, or an EFI system partition.
//   Checks   the disk may hold anything: sizes are bounded, and what is wrong is as if it were not there
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "life/images.h"

namespace caisson::life {

// Reads all of `bytes` from there; false where the disk has not so many.
using ReadDisk = std::function<bool(uint64_t offset, std::span<uint8_t> bytes)>;

// Bios where both are there, since that is quicker; none: nothing that firmware would start.
[[nodiscard]] std::optional<BootBy> boot_of_disk(const ReadDisk& read);

}  // namespace caisson::life
