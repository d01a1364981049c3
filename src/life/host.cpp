#include "life/host.h"

#include <algorithm>
#include <vector>

#include <sched.h>
#include <unistd.h>

#include "control/vm_config.h"

namespace caisson::life {
namespace {

// Splits a kernel command line at spaces, but not inside double quotes, as the kernel does.
std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> result;
  size_t start = 0;
  bool quoted = false;
  for (size_t i = 0; i <= line.size(); ++i) {
    if (i < line.size() && line[i] == '"') quoted = !quoted;
    if (i == line.size() || (line[i] == ' ' && !quoted)) {
      if (i > start) result.push_back(line.substr(start, i - start));
      start = i + 1;
    }
  }
  return result;
}

}  // namespace

uint64_t host_memory_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long size = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(size) : 0;
}

uint64_t usual_memory(uint64_t host_bytes) {
  constexpr uint64_t mib = uint64_t{1} << 20;
  if (host_bytes == 0 || host_bytes >= 1024 * mib) return 1024 * mib;
  return std::max(host_bytes / 2 / mib * mib, control::VmConfig::min_memory);
}

unsigned host_cpus() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
  const long count = ::sysconf(_SC_NPROCESSORS_ONLN);
  return count > 0 ? static_cast<unsigned>(count) : 1;
}

Result<std::string> command_line(std::string_view defaults, std::string_view extra) {
  std::string line{defaults};
  const auto add = [&](std::string_view text) {
    if (text.empty()) return;
    if (!line.empty()) line += ' ';
    line += text;
  };
  add(extra);
  bool console = false;
  bool panic = false;
  const std::string given = line;
  for (const auto word : words(given)) {
    // What follows "--" is for init.
    if (word == "--") break;
    console = console || word.starts_with("console=");
    panic = panic || word.starts_with("panic=");
  }
  // In front, so that words after a "--" stay init's.
  if (!panic) line = line.empty() ? "panic=-1" : "panic=-1 " + line;
  if (!console) line = "console=ttyS0 " + line;
  if (line.size() > control::VmConfig::max_append) {
    return fail("the kernel command line has {} bytes, at most {} fit; shorten it", line.size(),
                control::VmConfig::max_append);
  }
  if (std::any_of(line.begin(), line.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
    return fail("the kernel command line has control characters; remove them");
  }
  return line;
}

}  // namespace caisson::life
