// The engine's profile as text for people.
//   Threads  pure functions
#pragma once

#include <string>

#include "control/messages.h"

namespace caisson::cli {

[[nodiscard]] std::string profile_report(const control::Profiled& profile);

}  // namespace caisson::cli
