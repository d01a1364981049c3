// The host's TSC and the time of the same moment: two readings give its frequency.
//   Threads  any
#pragma once

#include <cstdint>
#include <ctime>

namespace caisson {

struct TscReading {
  uint64_t tsc = 0;
  uint64_t ns = 0;  // CLOCK_MONOTONIC_RAW; 0: no reading
  bool operator==(const TscReading&) const = default;
};

// To some 30 ns.
inline TscReading read_tsc() {
  TscReading reading;
  // The shortest of several brackets the clock best.
  uint64_t best = ~uint64_t{0};
  for (int i = 0; i < 8; ++i) {
    timespec now{};
    const uint64_t before = __builtin_ia32_rdtsc();
    ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    const uint64_t took = __builtin_ia32_rdtsc() - before;
    if (took >= best) continue;
    best = took;
    reading = {before + took / 2,
               static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec)};
  }
  return reading;
}

}  // namespace caisson
