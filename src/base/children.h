// The children of a process: those that its threads have made and that have not ended.
//   Source   proc(5), /proc/PID/task/TID/children
//   Threads  any
#pragma once

#include <vector>

#include <sys/types.h>

namespace caisson {

// None where the process is gone.
[[nodiscard]] std::vector<pid_t> children_of(pid_t process);

}  // namespace caisson
