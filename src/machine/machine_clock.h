// Guest time on the host's clocks.
//   Models   monotonic time from CLOCK_MONOTONIC, wall time from CLOCK_REALTIME, the TSC natively (offset so that it
//   starts
//            near 0 when the machine does)
//   Threads  any; timers fire on the event loop
#pragma once

#include "base/event_loop.h"
#include "base/tsc_reading.h"
#include "bus/clock.h"

namespace caisson::machine {

// The host's TSC frequency in Hz: from CPUID where it says, else measured since the `earlier` reading, over two
// milliseconds at least; without one it takes that long.
[[nodiscard]] uint64_t host_tsc_hz(const TscReading& earlier);

class MachineClock final : public Clock {
 public:
  MachineClock(EventLoop& loop, uint64_t tsc_hz);

  [[nodiscard]] uint64_t now_ns() const override;
  [[nodiscard]] uint64_t wall_ns() const override;
  [[nodiscard]] uint64_t tsc() const override { return __builtin_ia32_rdtsc() - tsc_start_; }
  [[nodiscard]] uint64_t tsc_hz() const override { return tsc_hz_; }
  [[nodiscard]] std::unique_ptr<Timer> create_timer(std::function<void()> handler) override;

 private:
  EventLoop& loop_;
  const uint64_t tsc_hz_;
  const uint64_t start_ns_;
  const uint64_t tsc_start_;
};

}  // namespace caisson::machine
