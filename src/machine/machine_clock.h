// Guest time on the host's clocks.
//   Models   monotonic time from CLOCK_MONOTONIC, wall time from CLOCK_REALTIME, the TSC natively (offset so that it
//   starts
//            near 0 when the machine does)
//   Pause    stand_still() and go_on(): monotonic time and TSC stand, and no timer fires; wall time goes on
//   Threads  any; timers fire on the event loop; no CPU runs, and the device lock is held, around a pause
#pragma once

#include <atomic>
#include <mutex>
#include <set>

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
  [[nodiscard]] uint64_t tsc() const override;
  [[nodiscard]] uint64_t tsc_hz() const override { return tsc_hz_; }
  [[nodiscard]] std::unique_ptr<Timer> create_timer(std::function<void()> handler) override;

  void stand_still();
  void go_on();

 private:
  class LoopTimer;

  EventLoop& loop_;
  const uint64_t tsc_hz_;
  // Of the host's clocks when the guest's were 0.
  std::atomic<uint64_t> start_ns_;
  std::atomic<uint64_t> tsc_start_;
  // Of the guest's clocks, while they stand still.
  std::atomic<bool> standing_ = false;
  std::atomic<uint64_t> standing_ns_ = 0;
  std::atomic<uint64_t> standing_tsc_ = 0;
  std::mutex timers_lock_;
  std::set<LoopTimer*> timers_;
};

}  // namespace caisson::machine
