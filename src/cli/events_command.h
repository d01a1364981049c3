// caisson events: what happened to machines, from their records, and what happens from now on.
//   Threads  main thread
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::cli {

struct EventsOptions {
  std::vector<std::string> names;  // machines; none: all
  std::string since;               // see parse_since(); empty: from the beginning, with `follow` from now on
  bool follow = false;
  bool json = false;
};

// "90s", "10m", "2h", "3d" before `now_ms`, or a time like 2026-01-02T03:04:05Z: milliseconds since 1970.
[[nodiscard]] Result<uint64_t> parse_since(std::string_view text, uint64_t now_ms);

// Exit status.
[[nodiscard]] int events_command(const EventsOptions& options);

}  // namespace caisson::cli
