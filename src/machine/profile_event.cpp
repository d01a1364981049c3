#include "machine/profile_event.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace caisson::machine {

control::Profiled profiled(EngineProfile profile) {
  constexpr size_t most = 40;
  std::ranges::stable_sort(profile.rows, [](const auto& a, const auto& b) {
    return std::tie(a.group, b.value) < std::tie(b.group, a.value);
  });
  control::Profiled event;
  size_t in_group = 0;
  for (EngineProfile::Row& row : profile.rows) {
    in_group = !event.rows.empty() && event.rows.back().group == row.group ? in_group + 1 : 0;
    if (in_group < most) event.rows.push_back({std::move(row.group), std::move(row.name), row.value});
  }
  return event;
}

}  // namespace caisson::machine
