// A CPU model's CPUID in the form that KVM takes.
//   Source   Linux Documentation/virt/kvm/api.rst, KVM_SET_CPUID2; Intel SDM vol. 2A, CPUID
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <vector>

#include <linux/kvm.h>

#include "base/result.h"
#include "kvm/device.h"
#include "x86/cpu_model.h"

namespace caisson::kvm {

// What the host's KVM can give to a guest.
[[nodiscard]] Result<std::vector<kvm_cpuid_entry2>> supported_cpuid(const KvmDevice& device);

// The model's leaves for one CPU. A feature that the host's KVM cannot give is left out. The kernel itself keeps the
// bits that follow the CPU's state (OSXSAVE, APIC enabled, size of the XSAVE area).
[[nodiscard]] std::vector<kvm_cpuid_entry2> cpuid_entries(const x86::CpuModel& model,
                                                          const std::vector<kvm_cpuid_entry2>& supported,
                                                          uint32_t apic_id);

[[nodiscard]] Result<> set_cpuid(int vcpu_fd, const std::vector<kvm_cpuid_entry2>& entries);

}  // namespace caisson::kvm
