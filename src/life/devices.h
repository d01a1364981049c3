// Disks and network cards that are added to a machine and taken from it, and disks that grow: of a running machine at
// once, where the guest lets go of what leaves, and in its configuration, which changes only where the machine has.
//   Errors   one line each, which says what to do
//   Threads  any
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "control/vm_config.h"
#include "life/really.h"
#include "store/vm_folder.h"

namespace caisson::life {

// `disk.path` is absolute.
[[nodiscard]] Result<> attach_disk(const store::VmFolder& folder, const store::DiskSpec& disk, Really really);
// A network card, for a machine that has none. `limit`: of its rates; none: as the configuration has it.
[[nodiscard]] Result<> attach_net(const store::VmFolder& folder, control::NetCard card,
                                  std::optional<control::RateLimit> limit, Really really);

// `item`: the disk's path as the configuration has it, another path of the same file, or its file's name. Waits for the
// guest, control::detach_patience_ms at most.
[[nodiscard]] Result<> detach_disk(const store::VmFolder& folder, const std::string& item, Really really);
[[nodiscard]] Result<> detach_net(const store::VmFolder& folder, Really really);

// Of a running machine. `bytes`: the new size, or by how much with `by`.
[[nodiscard]] Result<> grow_disk(const store::VmFolder& folder, const std::string& item, uint64_t bytes, bool by,
                                 Really really = Really::Yes);

// The running machine that has this file as a disk of its own.
[[nodiscard]] std::optional<store::VmFolder> user_of_disk(const std::string& path);

}  // namespace caisson::life
