// What the kernel tells of a process: proc(5), stat.
//   Threads  any
#pragma once

#include <cstdint>
#include <optional>

#include <sys/types.h>

namespace caisson::life {

struct ProcessUsage {
  double cpu_s = 0;  // on CPUs of the host since its start, all threads, user and system; its children's, too
  uint64_t resident_bytes = 0;  // the host's memory that it takes
};
// Nothing where the process is gone.
[[nodiscard]] std::optional<ProcessUsage> usage_of(pid_t pid);

}  // namespace caisson::life
