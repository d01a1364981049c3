// stats and top: what machines use of the host, now and while one looks.
//   Source   the kernel's count for each machine's process (life/process_usage.h), twice with a second between
//   Threads  main thread
#pragma once

#include <string>
#include <vector>

namespace caisson::cli {

struct StatsOptions {
  std::vector<std::string> names;  // empty: all that run
  bool follow = false;             // again every two seconds until interrupted; on a terminal in one place
  bool by_use = false;             // most use of CPUs first
  bool json = false;               // with `follow` one line each time
};
// The exit status.
[[nodiscard]] int stats_command(const StatsOptions& options);

}  // namespace caisson::cli
