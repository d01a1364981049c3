// The time of day.
//   Threads  any
#pragma once

#include <cstdint>
#include <ctime>

namespace caisson {

// UTC, milliseconds since 1970.
[[nodiscard]] inline uint64_t utc_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

}  // namespace caisson
