#include "base/log.h"

#include <string>

#include <unistd.h>

namespace caisson::log {
namespace {

std::atomic<Level> lowest_level{Level::Warning};

std::string_view prefix(Level level) {
  switch (level) {
    case Level::Debug: return "caisson: debug: ";
    case Level::Info: return "caisson: ";
    case Level::Warning: return "caisson: warning: ";
    case Level::Error: return "caisson: error: ";
  }
  return "";
}

}  // namespace

void set_level(Level lowest) { lowest_level.store(lowest, std::memory_order_relaxed); }

bool enabled(Level level) { return level >= lowest_level.load(std::memory_order_relaxed); }

void line(Level level, std::string_view text) {
  std::string whole{prefix(level)};
  whole += text;
  whole += '\n';
  // A log that cannot be written has nowhere to report it.
  [[maybe_unused]] ssize_t written = ::write(STDERR_FILENO, whole.data(), whole.size());
}

}  // namespace caisson::log
