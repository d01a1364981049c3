#include "base/child_time.h"

#include <ctime>
#include <mutex>
#include <vector>

namespace caisson::child_time {
namespace {

std::mutex lock;
std::vector<pid_t> children;
uint64_t of_former_ns = 0;

uint64_t used_ns(pid_t child) {
  clockid_t clock = 0;
  timespec used{};
  if (clock_getcpuclockid(child, &clock) != 0 || clock_gettime(clock, &used) != 0) return 0;
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec);
}

}  // namespace

void add(pid_t child) {
  const std::lock_guard hold(lock);
  children.push_back(child);
}

void remove(pid_t child) {
  const std::lock_guard hold(lock);
  if (std::erase(children, child) != 0) of_former_ns += used_ns(child);
}

uint64_t total_ns() {
  const std::lock_guard hold(lock);
  uint64_t total = of_former_ns;
  for (const pid_t child : children) total += used_ns(child);
  return total;
}

}  // namespace caisson::child_time
