#include "jit/direct/same_cpu.h"

#include <array>
#include <atomic>

namespace caisson::jit {
namespace {

// How many vCPUs of this process stay on each CPU.
std::array<std::atomic<int>, CPU_SETSIZE> chosen{};

cpu_set_t only(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  return set;
}

}  // namespace

void run_on(pid_t process, int cpu) {
  const cpu_set_t set = only(cpu);
  sched_setaffinity(process, sizeof set, &set);
}

void SameCpu::stay_on(int cpu) {
  const cpu_set_t set = only(cpu);
  if (sched_setaffinity(0, sizeof set, &set) != 0) return;
  if (cpu_ >= 0) --chosen[static_cast<size_t>(cpu_)];
  ++chosen[static_cast<size_t>(cpu)];
  cpu_ = cpu;
}

void SameCpu::stay() {
  if (cpu_ >= 0 || sched_getaffinity(0, sizeof before_, &before_) != 0) return;
  const int here = sched_getcpu();
  if (here < 0 || here >= CPU_SETSIZE) return;
  int best = here;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &before_) &&
        chosen[static_cast<size_t>(cpu)] < chosen[static_cast<size_t>(best)])
      best = cpu;
  }
  stay_on(best);
}

void SameCpu::leave() {
  if (cpu_ < 0) return;
  --chosen[static_cast<size_t>(cpu_)];
  cpu_ = -1;
  sched_setaffinity(0, sizeof before_, &before_);
}

void SameCpu::move() {
  if (cpu_ < 0) return;
  for (int i = 1; i < CPU_SETSIZE; ++i) {
    const int cpu = (cpu_ + i) % CPU_SETSIZE;
    if (!CPU_ISSET(static_cast<size_t>(cpu), &before_)) continue;
    stay_on(cpu);
    return;
  }
}

}  // namespace caisson::jit
