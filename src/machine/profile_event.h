// An engine's profile as the machine's owner is told it.
//   Threads  any
#pragma once

#include "control/messages.h"
#include "engine/engine.h"

namespace caisson::machine {

// The largest of each group.
[[nodiscard]] control::Profiled profiled(EngineProfile profile);

}  // namespace caisson::machine
