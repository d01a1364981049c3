// The MSRs that the machine answers itself, not the host's kernel: those of our own local APIC, those that must read
// the same under every engine, and the time stamp counter's writes, which move its deadline timer too.
// Local APICs in the kernel take their own.
#pragma once

#include "base/result.h"

namespace caisson::kvm {

// Has every access to these MSRs, and to those that the kernel does not know, exit to us.
[[nodiscard]] Result<> set_msr_filter(int vm_fd, bool kernel_apics);
// True where reads of the MSR are answered by us.
[[nodiscard]] bool own_msr(unsigned number);

}  // namespace caisson::kvm
