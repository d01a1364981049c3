// Disks and network cards that come to the store's machines and leave them: attach, detach.
//   Threads  main thread
#pragma once

#include <string>
#include <vector>

namespace caisson::cli {

// Exit statuses. `disks`, `net`: as run --disk and --net take them; one of them is given. With `dry_run` nothing is
// done but what finds out whether it could be.
[[nodiscard]] int attach_command(const std::string& name, const std::vector<std::string>& disks, const std::string& net,
                                 bool dry_run);
// `item`: a disk's path or file name, or "net".
[[nodiscard]] int detach_command(const std::string& name, const std::string& item, bool dry_run);

}  // namespace caisson::cli
