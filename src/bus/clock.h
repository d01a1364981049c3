// Guest time. Devices never read the host's clock themselves.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace caisson {

class Clock {
 public:
  virtual ~Clock() = default;

  [[nodiscard]] virtual uint64_t now_ns() const = 0;   // monotonic; stands still while the machine is paused
  [[nodiscard]] virtual uint64_t wall_ns() const = 0;  // UTC nanoseconds since 1970, for the RTC and kvmclock
  [[nodiscard]] virtual uint64_t tsc() const = 0;      // the guest's time stamp counter
  [[nodiscard]] virtual uint64_t tsc_hz() const = 0;

  class Timer {
   public:
    virtual ~Timer() = default;
    virtual void arm(uint64_t deadline_ns) = 0;  // in now_ns() time; replaces an earlier deadline
    virtual void cancel() = 0;
  };
  // `handler` runs on the event loop's thread with the device lock held. Any thread may arm and cancel.
  [[nodiscard]] virtual std::unique_ptr<Timer> create_timer(std::function<void()> handler) = 0;
};

}  // namespace caisson
