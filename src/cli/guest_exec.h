// caisson exec: a command in a running machine, with this process's standard streams.
//   Threads  main thread
#pragma once

#include <string>
#include <vector>

namespace caisson::cli {

// The command's exit status; 255 where the machine cannot be reached. Waits for it to come up.
[[nodiscard]] int exec_command(const std::string& name, const std::vector<std::string>& words);

}  // namespace caisson::cli
