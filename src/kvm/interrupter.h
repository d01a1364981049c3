// A timer that brings the thread that made it out of KVM_RUN.
//   Threads  the one that made it; install_kick_signal() has been called
#pragma once

#include <csignal>
#include <cstdint>
#include <ctime>

#include <unistd.h>

#include "kvm/kick_signal.h"

namespace caisson::kvm {

class Interrupter {
 public:
  Interrupter() {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = kick_signal;
    event._sigev_un._tid = ::gettid();
    made_ = ::timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
  }
  ~Interrupter() {
    if (made_) ::timer_delete(timer_);
  }
  Interrupter(const Interrupter&) = delete;
  Interrupter& operator=(const Interrupter&) = delete;
  [[nodiscard]] bool made() const { return made_; }
  // Once after `ns`, and then again and again: one that comes before KVM_RUN has begun is lost.
  void arm(uint64_t ns) const {
    const timespec time{.tv_sec = static_cast<time_t>(ns / 1'000'000'000),
                        .tv_nsec = static_cast<long>(ns % 1'000'000'000)};
    const itimerspec when{.it_interval = time, .it_value = time};
    ::timer_settime(timer_, 0, &when, nullptr);
  }

 private:
  timer_t timer_{};
  bool made_ = false;
};

}  // namespace caisson::kvm
