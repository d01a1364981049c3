// Log lines to standard error: "caisson: warning: <text>". Guest-caused events must go through a log::Limit, so that no
// guest can flood a log. Any thread may call; a line is written by one write(2).
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include <fmt/core.h>

namespace caisson::log {

enum class Level : uint8_t { Debug, Info, Warning, Error };

void set_level(Level lowest);
[[nodiscard]] bool enabled(Level level);
void line(Level level, std::string_view text);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::Debug)) line(Level::Debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::Info)) line(Level::Info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::Warning)) line(Level::Warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::Error)) line(Level::Error, fmt::format(format, std::forward<Args>(args)...));
}

// Lets the first `burst` events of one kind through; counts all of them.
class Limit {
 public:
  explicit Limit(uint64_t burst = 8) : burst_(burst) {}
  [[nodiscard]] bool allow() { return count_.fetch_add(1, std::memory_order_relaxed) < burst_; }
  [[nodiscard]] uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  const uint64_t burst_;
  std::atomic<uint64_t> count_{0};
};

}  // namespace caisson::log
