// The time of day.
//   Threads  any
#pragma once

#include <cstdint>
#include <ctime>
#include <string>

#include <fmt/core.h>

namespace caisson {

// UTC, milliseconds since 1970.
[[nodiscard]] inline uint64_t utc_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

// "2026-01-02T03:04:05Z"
[[nodiscard]] inline std::string utc_text(uint64_t ms) {
  const auto seconds = static_cast<time_t>(ms / 1000);
  tm utc{};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec);
}

}  // namespace caisson
