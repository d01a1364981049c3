// The KVM paravirtual clock: guest time as a function of the TSC, in guest memory.
#pragma once

#include "jit/cpu.h"

namespace caisson::jit {

// Fills the structure that the KVM_SYSTEM_TIME MSR points to, if it is enabled. To be called when the MSR or the
// guest's TSC was written, and after the machine's clock has been stopped or restored.
void update_system_time(Cpu& cpu);
// Fills the structure at `address` with the wall-clock time at which system time was zero.
void write_wall_clock(Cpu& cpu, uint64_t address);

}  // namespace caisson::jit
