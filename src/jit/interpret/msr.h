// Model-specific registers.
#pragma once

#include "jit/interpret/step.h"

namespace caisson::jit {

// False: the guest gets #GP(0).
[[nodiscard]] bool read_msr(Cpu& cpu, uint32_t number, uint64_t& value);
[[nodiscard]] bool write_msr(Cpu& cpu, uint32_t number, uint64_t value);
void reset_msrs(Cpu& cpu, bool init);

}  // namespace caisson::jit
