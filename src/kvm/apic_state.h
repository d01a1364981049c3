// Between LocalApicState and a local APIC that the kernel keeps.
//   Source   Linux Documentation/virt/kvm/api.rst, KVM_GET_LAPIC; Intel SDM vol. 3, table 11-1
//   Omits    the initial count of a one-shot timer that has run down reads 0 afterwards: the kernel would start it anew
//   Threads  while the vCPU does not run
#pragma once

#include <cstdint>

#include "base/result.h"
#include "bus/clock.h"
#include "bus/local_apic_state.h"

namespace caisson::kvm {

// All but `lint0` and `events`, into `state`. A timer that has run down in the kernel but has not made its interrupt
// yet is not seen here (KvmVcpu::settle_apic). `tsc_offset`: the CPU's.
[[nodiscard]] Result<> get_apic(int vcpu_fd, const Clock& clock, uint64_t tsc_offset, LocalApicState& state);
// After the CPU's IA32_APIC_BASE and time stamp counter were set.
[[nodiscard]] Result<> set_apic(int vcpu_fd, unsigned index, const Clock& clock, uint64_t tsc_offset,
                                const LocalApicState& state);

}  // namespace caisson::kvm
