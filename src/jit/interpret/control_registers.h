// MOV to and from control and debug registers.
#pragma once

#include "jit/interpret/step.h"

namespace caisson::jit {

bool mov_to_control(Step& step);
bool mov_from_control(Step& step);
bool mov_to_debug(Step& step);
bool mov_from_debug(Step& step);

// CR3 as a task switch loads it.
[[nodiscard]] bool set_cr3(Cpu& cpu, uint64_t value);

}  // namespace caisson::jit
