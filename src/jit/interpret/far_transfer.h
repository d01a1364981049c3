// Control transfers to other code segments.
#pragma once

#include "jit/interpret/segments.h"
#include "jit/interpret/step.h"

namespace caisson::jit {

bool far_jump(Step& step);
bool far_call(Step& step);
bool far_return(Step& step);

}  // namespace caisson::jit
