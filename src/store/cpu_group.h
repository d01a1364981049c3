// The control group of a machine: how the host's scheduler keeps its CPU cap and share, where this user may make
// groups.
//   Version 1  cpu.cfs_quota_us and cpu.shares of a group below the caller's own in the hierarchy of the controller
//   "cpu" Version 2  cpu.max and cpu.weight of a group below the nearest one above the caller that hands the controller
//   on,
//              is the user's to write, and, where systemd runs, was delegated: the rest of the tree is systemd's
//              (https://systemd.io/CGROUP_DELEGATION). A group with processes of its own cannot hand it on.
//   Trace      the folder's file "cpu-group" names the group from before it is made until it is removed, so that the
//              next command finds what a killed one has left. Groups are removed by rmdir, which the kernel refuses
//              while a process is in them; nothing else is written to a group that is not named there.
//   Threads    any; changes under the machine's lock
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <sys/types.h>

#include "base/result.h"
#include "store/vm_folder.h"

namespace caisson::store {

struct CpuLimit {
  uint32_t cap_percent = 0;  // of one CPU; 0: none
  uint32_t share = control::usual_cpu_share;
  [[nodiscard]] bool none() const { return cap_percent == 0 && share == control::usual_cpu_share; }
};

// Where groups can be made.
struct CpuGroupPlace {
  unsigned version = 0;
  std::string path;  // of the group that ours will be in
};
// What is so for the caller's process; the error says why there is no place.
[[nodiscard]] Result<CpuGroupPlace> find_cpu_groups();
// By /proc/self/cgroup, /proc/self/mountinfo (cgroups(7), proc(5)), and whether systemd manages the tree.
[[nodiscard]] Result<CpuGroupPlace> find_cpu_groups(std::string_view own, std::string_view mounts, bool systemd);

// The group of this machine; empty: it has none.
[[nodiscard]] std::string cpu_group(const VmFolder& folder);
// Limits the process by a group of the machine's own, made where it has none yet. An error, and no group that was not
// there, where that cannot be.
[[nodiscard]] Result<> limit_by_cpu_group(const VmFolder& folder, const CpuGroupPlace& place, pid_t process,
                                          const CpuLimit& limit);
// For a machine that is in its group already.
[[nodiscard]] Result<> change_cpu_group(const VmFolder& folder, const CpuLimit& limit);
// Of a machine whose process has ended. Waits so long for the kernel, to which the process may still be in it. True:
// there is no group any more.
bool remove_cpu_group(const VmFolder& folder, uint64_t patience_ms);

}  // namespace caisson::store
