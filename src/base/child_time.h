// CPU time of processes that do a part of this one's work and have not ended: it counts as this one's.
//   Threads  any
#pragma once

#include <cstdint>

#include <sys/types.h>

namespace caisson::child_time {

void add(pid_t child);
// Before it ends; what it used is kept.
void remove(pid_t child);
// Of all that there were, nanoseconds.
[[nodiscard]] uint64_t total_ns();

}  // namespace caisson::child_time
