#include "cli/progress.h"

#include <algorithm>
#include <cstdio>

#include <fmt/core.h>
#include <unistd.h>

#include "base/event_loop.h"
#include "cli/transfer_progress.h"

namespace caisson::cli {
Progress::Progress(unsigned steps)
    : steps_(steps), terminal_(::isatty(STDERR_FILENO) == 1), start_ns_(EventLoop::now_ns()) {}

Progress::~Progress() {
  if (line_open_) fmt::print(stderr, "\n");
}

double Progress::elapsed_s() const { return static_cast<double>(EventLoop::now_ns() - start_ns_) / 1e9; }

void Progress::show(std::optional<double> value) {
  std::string text = fmt::format("[{:3.0f} s] {}/{} {}", elapsed_s(), current_, steps_, what_);
  if (value) text += fmt::format(" {:3.0f} %", *value);
  // Of this step: how long the others will take nobody knows.
  const double in_step = elapsed_s() - step_start_s_;
  if (value && *value >= 5 && *value < 100 && in_step >= 2)
    text += fmt::format(", {} left", human_time(static_cast<uint64_t>(in_step * (100 - *value) / *value)));
  if (terminal_) {
    fmt::print(stderr, "\r\x1b[2K{}", text);
    line_open_ = true;
  } else {
    fmt::print(stderr, "caisson: {}\n", text);
  }
  std::fflush(stderr);
}

void Progress::step(std::string_view what) {
  if (line_open_) fmt::print(stderr, "\n");
  line_open_ = false;
  current_ = std::min(current_ + 1, steps_);
  shown_quarter_ = 0;
  step_start_s_ = elapsed_s();
  what_ = what;
  show(std::nullopt);
}

void Progress::percent(double value) {
  value = std::clamp(value, 0.0, 100.0);
  const int quarter = static_cast<int>(value / 25);
  if (!terminal_ && quarter <= shown_quarter_) return;
  shown_quarter_ = quarter;
  show(value);
}

void Progress::done(std::string_view what) {
  if (line_open_) fmt::print(stderr, "\n");
  line_open_ = false;
  fmt::print(stderr, "caisson: {} in {:.0f} s\n", what, elapsed_s());
}

}  // namespace caisson::cli
