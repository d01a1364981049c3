// What is known of the store's machines: ps, inspect, logs, port.
//   State    from the machine's own process, asked over its socket; of one that does not run from its record of events
//   Threads  main thread
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace caisson::cli {

// Exit statuses. `quiet`: names only.
[[nodiscard]] int ps_command(bool all, bool quiet, bool json);
[[nodiscard]] int inspect_command(const std::vector<std::string>& names);
// `lines`: the last of them only.
[[nodiscard]] int logs_command(const std::string& name, std::optional<unsigned> lines, bool follow);
// `add`, `remove`: forwards as run -p takes them, host ports; then nothing is listed.
[[nodiscard]] int port_command(const std::string& name, const std::vector<std::string>& add,
                               const std::vector<std::string>& remove, bool json, bool dry_run);

}  // namespace caisson::cli
