#include "cli/profile_report.h"

#include <array>
#include <string_view>

#include <fmt/core.h>

namespace caisson::cli {
namespace {

constexpr std::string_view idle = "idle";

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100 * static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

std::string profile_report(const control::Profiled& profile) {
  struct Group {
    std::string_view name, title;
    bool time;
  };
  static constexpr std::array<Group, 5> groups{{{"time", "where the time of the CPUs went (shares without idle)", true},
                                                {"blocks", "hottest blocks (shares of all time but idle)", true},
                                                {"events", "events", false},
                                                {"interpreted", "interpreted instructions", false},
                                                {"vectors", "interrupts and exceptions, by vector", false}}};
  uint64_t busy = 0;
  for (const control::ProfileRow& row : profile.rows) {
    if (row.group == "time" && row.name != idle) busy += row.value;
  }
  std::string text;
  for (const Group& group : groups) {
    text += fmt::format("caisson: {}\n", group.title);
    for (const control::ProfileRow& row : profile.rows) {
      if (row.group != group.name) continue;
      if (!group.time) {
        text += fmt::format("  {:>12}  {}\n", row.value, row.name);
      } else if (row.name == idle) {
        text += fmt::format("  {:9.3f} s         {}\n", static_cast<double>(row.value) / 1e6, row.name);
      } else {
        text += fmt::format("  {:9.3f} s {:5.1f} % {}\n", static_cast<double>(row.value) / 1e6, share(row.value, busy),
                            row.name);
      }
    }
  }
  return text;
}

}  // namespace caisson::cli
