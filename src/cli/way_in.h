// Into a running machine: by the agent in its guest, or by its ssh server.
//   Threads  main thread
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace caisson::cli {

constexpr int exit_unreachable = 255;  // as ssh's own

struct WayIn {
  Fd agent;               // a connection that waits for its request; invalid: by ssh
  uint32_t ssh_port = 0;  // of this host's 127.0.0.1
};

enum class Ways : uint8_t { AgentOrSsh, Ssh };

// Waits up to two minutes for a machine that still boots.
[[nodiscard]] Result<WayIn> way_in(const std::string& name, Ways ways);

}  // namespace caisson::cli
