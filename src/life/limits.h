// Limits of a machine by the words of a user: in its configuration, and in the running machine.
//   Disks    by their number, as inspect lists them from 0, their path, or their file's name
//   Threads  any
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "control/limits.h"
#include "life/machines.h"
#include "store/vm_folder.h"

namespace caisson::life {

// The index of that disk; an error that says which there are.
[[nodiscard]] Result<size_t> disk_named(const store::VmSpec& spec, std::string_view disk);

// Those without a limit in them take one away.
[[nodiscard]] Result<> apply_disk_limits(const std::vector<control::DiskLimit>& limits, store::VmSpec& spec);
// What of a change is a limit.
[[nodiscard]] Result<> apply_limits(const Change& change, store::VmSpec& spec);

// What a running machine of this configuration, which has the change, is to be told; nothing where the change has no
// limits.
[[nodiscard]] std::optional<control::SetLimits> live_limits(const Change& change, const store::VmSpec& spec);

// Tells the running machine. `before`: its configuration without the change. CPU limits are kept by a control group
// where it has one, or had no such limits and can have one (store/cpu_group.h). Under the machine's lock; an error, and
// nothing has changed.
[[nodiscard]] Result<> tell_limits(const store::VmFolder& folder, control::SetLimits limits, const store::VmSpec& spec,
                                   const store::VmSpec& before);

}  // namespace caisson::life
