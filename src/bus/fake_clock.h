// A clock that tests move by hand: 1 GHz TSC, time starts at 1 s, wall clock at 2023-06-10 00:00:00 UTC.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "bus/clock.h"

namespace caisson {

class FakeClock final : public Clock {
 public:
  [[nodiscard]] uint64_t now_ns() const override { return now_; }
  [[nodiscard]] uint64_t wall_ns() const override { return 1'686'355'200'000'000'000 + now_ - 1'000'000'000; }
  [[nodiscard]] uint64_t tsc() const override { return now_; }
  [[nodiscard]] uint64_t tsc_hz() const override { return 1'000'000'000; }

  [[nodiscard]] std::unique_ptr<Timer> create_timer(std::function<void()> handler) override {
    return std::make_unique<FakeTimer>(*this, std::move(handler));
  }

  // Moves time forward, firing timers in order at their own time.
  void advance(uint64_t ns) {
    const uint64_t end = now_ + ns;
    for (;;) {
      FakeTimer* next = nullptr;
      for (FakeTimer* timer : timers_) {
        if (timer->deadline && *timer->deadline <= end && (!next || *timer->deadline < *next->deadline)) next = timer;
      }
      if (next == nullptr) break;
      now_ = std::max(now_, *next->deadline);
      next->deadline.reset();
      next->handler();
    }
    now_ = end;
  }

 private:
  struct FakeTimer final : Timer {
    FakeTimer(FakeClock& owner, std::function<void()> run) : clock(owner), handler(std::move(run)) {
      clock.timers_.push_back(this);
    }
    ~FakeTimer() override { std::erase(clock.timers_, this); }
    void arm(uint64_t deadline_ns) override { deadline = deadline_ns; }
    void cancel() override { deadline.reset(); }

    FakeClock& clock;
    std::function<void()> handler;
    std::optional<uint64_t> deadline;
  };

  uint64_t now_ = 1'000'000'000;
  std::vector<FakeTimer*> timers_;
};

}  // namespace caisson
