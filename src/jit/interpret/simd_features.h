// Which CPU features and control bits an x87, MMX or vector instruction needs.
#pragma once

#include "jit/interpret/step.h"

namespace caisson::jit {

// #UD or #NM where the guest may not execute it now.
[[nodiscard]] bool simd_allowed(Step& step);

}  // namespace caisson::jit
