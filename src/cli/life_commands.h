// The life of the store's machines by their names: start, stop, kill, restart, pause, resume, rm, rename, wait,
// console.
//   Many     where several names are given each is done, whatever happens to the others; errors are printed
//   Threads  main thread
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "life/would.h"

namespace caisson::cli {

using Names = std::vector<std::string>;

using life::Operation;

// Exit statuses.
// --dry-run: says for each machine what would be done, or why it could not be; nothing is.
[[nodiscard]] int would(Operation operation, const Names& names);
[[nodiscard]] int start_command(const Names& names);
// `timeout_s`: how long the guest may take to shut down; none: as the machine's configuration says.
[[nodiscard]] int stop_command(const Names& names, std::optional<unsigned> timeout_s);
[[nodiscard]] int kill_command(const Names& names);
[[nodiscard]] int restart_command(const Names& names, std::optional<unsigned> timeout_s);
[[nodiscard]] int pause_command(const Names& names);
[[nodiscard]] int resume_command(const Names& names);
[[nodiscard]] int reset_command(const Names& names);
[[nodiscard]] int remove_command(const Names& names, bool force);
[[nodiscard]] int rename_command(const std::string& name, const std::string& to, bool dry_run);
// Waits for the machine's end: as `run` would have ended. At once where it does not run.
[[nodiscard]] int wait_command(const std::string& name);
[[nodiscard]] int console_command(const std::string& name);

}  // namespace caisson::cli
