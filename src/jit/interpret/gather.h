// Gathers and scatters: VSIB memory operands, element by element.
#pragma once

#include "jit/interpret/step.h"

namespace caisson::jit {

[[nodiscard]] bool run_vsib(Step& step);

}  // namespace caisson::jit
