#include "life/process_usage.h"

#include <cstdio>

#include <fmt/core.h>
#include <unistd.h>

#include "base/children.h"
#include "store/files.h"

namespace caisson::life {

namespace {

std::optional<ProcessUsage> usage_of_one(pid_t pid) {
  const auto stat = read_file(fmt::format("/proc/{}/stat", pid), 4096);
  if (!stat) return std::nullopt;
  // After the name, which may hold anything: state is field 3; utime 14, stime 15, rss 24.
  const size_t end = stat->rfind(')');
  if (end == std::string::npos) return std::nullopt;
  unsigned long long user = 0;
  unsigned long long kernel = 0;
  unsigned long long pages = 0;
  const int read = std::sscanf(stat->c_str() + end + 1,
                               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %*u %*u "
                               "%llu",
                               &user, &kernel, &pages);
  if (read != 3) return std::nullopt;
  const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  return ProcessUsage{static_cast<double>(user + kernel) / ticks,
                      pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))};
}

}  // namespace

std::optional<ProcessUsage> usage_of(pid_t pid) {
  auto all = usage_of_one(pid);
  if (!all) return all;
  // A machine's user code runs in children (jit/direct/); their memory is the machine's own, mapped once more.
  for (const pid_t child : children_of(pid)) {
    if (const auto one = usage_of_one(child)) all->cpu_s += one->cpu_s;
  }
  return all;
}

}  // namespace caisson::life
