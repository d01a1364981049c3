// x87, MMX, SSE, AVX and AVX-512 instructions: preconditions, memory operands, native execution.
#pragma once

#include "jit/interpret/step.h"

namespace caisson::jit {

bool run_simd(Step& step);

}  // namespace caisson::jit
