// What is known of the store's machines.
//   State    from the machine's own process, asked over its socket; of one that does not run from its record of events
//   Threads  any
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "life/vm_client.h"
#include "store/store.h"

namespace caisson::life {

struct Listed {
  store::VmFolder folder;
  Result<store::VmSpec> spec;
  bool alive = false;
  std::optional<VmClient> client;         // connected, where `status` is there
  std::optional<control::Status> status;  // of one that runs and answers
  store::VmFolder::LastLife life;         // of one that does not
};

// Those of `names` that are there. Every machine is asked before the first answer is waited for; all together may take
// two seconds to answer.
[[nodiscard]] std::vector<Listed> look(const store::Store& store, const std::vector<std::string>& names);

inline constexpr std::array<std::string_view, 9> states{"created",  "starting", "running", "paused", "stopped",
                                                        "panicked", "failed",   "killed",  "broken"};
// One of them.
[[nodiscard]] std::string state_of(const Listed& one);
// All of it: name, state, folder, config or error, and status and pid or how it ended.
[[nodiscard]] nlohmann::json to_json(const Listed& one);

}  // namespace caisson::life
