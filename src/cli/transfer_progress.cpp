#include "cli/transfer_progress.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include <fmt/core.h>
#include <unistd.h>

#include "base/event_loop.h"

namespace caisson::cli {
namespace {

constexpr uint64_t second_ns = 1'000'000'000;

}  // namespace

std::string human_bytes(uint64_t bytes) {
  constexpr std::array units{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} bytes", bytes) : fmt::format("{:.{}f} {}", value, value < 10 ? 1 : 0, units[unit]);
}

std::string human_time(uint64_t seconds) {
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
  return fmt::format("{} h {} min", seconds / 3600, seconds % 3600 / 60);
}

TransferProgress::TransferProgress(std::string_view what, bool json)
    : what_(what),
      json_(json),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_ns_(EventLoop::now_ns()),
      shown_ns_(start_ns_) {}

TransferProgress::~TransferProgress() {
  if (line_open_) fmt::print(stderr, "\r\x1b[2K");
}

void TransferProgress::update(uint64_t done, uint64_t total) {
  const uint64_t now = EventLoop::now_ns();
  const uint64_t pause = json_ ? second_ns : terminal_ ? second_ns / 10 : 5 * second_ns;
  if (now - shown_ns_ < pause || (total == 0 && done == 0)) return;
  shown_ns_ = now;
  const double elapsed = static_cast<double>(now - start_ns_) / 1e9;
  const double rate = static_cast<double>(done - std::min(first_, done)) / elapsed;
  const auto left = rate > 0 ? static_cast<uint64_t>(static_cast<double>(total - std::min(done, total)) / rate) : 0;
  if (json_) {
    fmt::print(stderr,
               "{{\"type\":\"progress\",\"done\":{},\"total\":{},\"bytes_per_second\":{:.0f},\"seconds_left\":{}}}\n",
               done, total, rate, left);
  } else {
    const double percent = 100 * static_cast<double>(done) / static_cast<double>(std::max<uint64_t>(total, 1));
    const std::string speed = human_bytes(static_cast<uint64_t>(rate));
    const std::string text = total == 0 ? fmt::format("{} {}, {}/s", what_, human_bytes(done), speed)
                                        : fmt::format("{} {:3.0f} %, {} of {}, {}/s, {} left", what_, percent,
                                                      human_bytes(done), human_bytes(total), speed, human_time(left));
    fmt::print(stderr, "{}{}{}", terminal_ ? "\r\x1b[2K" : "caisson: ", text, terminal_ ? "" : "\n");
    line_open_ = terminal_;
  }
  std::fflush(stderr);
}

}  // namespace caisson::cli
