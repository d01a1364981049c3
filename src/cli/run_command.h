// caisson run: opens what the machine is made of, starts its VMM, holds the console, and says how it ended.
//   Threads  main thread
#pragma once

#include <optional>

#include "cli/run_options.h"

namespace caisson::cli {

// The exit status (exit_status.h).
[[nodiscard]] int run(RunOptions options);
// caisson create: the same, but the machine is only made.
[[nodiscard]] int create(RunOptions options);
// What set takes besides.
struct SetOptions {
  std::optional<unsigned> stop_timeout_s;
  std::string memory_now;  // "256M"
  bool dry_run = false;
  std::optional<bool> autostart;
};
// caisson set: what is given in `options` takes the place of what the machine `options.name` has.
[[nodiscard]] int set(const RunOptions& options, const SetOptions& more);

}  // namespace caisson::cli
