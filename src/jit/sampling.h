// The timer that samples a vCPU's thread for its profile: SIGPROF, on an alternate stack, because translated code may
// use the stack pointer for itself.
//   Threads  made and destroyed on the thread that is sampled
#pragma once

#include <csignal>
#include <ctime>
#include <memory>

#include "jit/cpu.h"

namespace caisson::jit {

class Sampling {
 public:
  static constexpr uint64_t tick = 997;  // microseconds; no divisor of what guests' timers use

  // Does nothing for a Cpu without a profile.
  explicit Sampling(Cpu& cpu);
  ~Sampling();
  Sampling(const Sampling&) = delete;
  Sampling& operator=(const Sampling&) = delete;

 private:
  timer_t timer_{};
  bool running_ = false;
  std::unique_ptr<uint8_t[]> stack_;  // null: the thread had one
};

}  // namespace caisson::jit
