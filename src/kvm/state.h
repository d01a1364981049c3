// Between CpuState and what the kernel keeps of a vCPU, by ioctls.
//   Source   Linux Documentation/virt/kvm/api.rst; Intel SDM vol. 3, table 9-1 (state after RESET and INIT)
//   Omits    CpuState::activity, tsc_offset and MSRs that the kernel does not keep: the vCPU has those (vcpu.h)
//   Threads  the vCPU's thread, or any while it does not run
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "bus/interrupt.h"
#include "engine/cpu_state.h"
#include "x86/cpu_model.h"
#include "x86/registers.h"

namespace caisson::kvm {

// State after power-on; after INIT with the members that INIT leaves as they are taken from `before`.
[[nodiscard]] CpuState power_on_state(const x86::CpuModel& model);
[[nodiscard]] CpuState init_state(const CpuState& before, const x86::CpuModel& model);
// Makes a state that waits for a start-up interrupt the one that it starts in.
void start_at(CpuState& state, uint8_t sipi_vector);

// Which MSR stands in which slot of CpuState::msrs.
struct SlotMsr {
  uint8_t slot;
  uint32_t number;
};
[[nodiscard]] std::span<const SlotMsr> slot_msrs();
// None where no slot is this MSR's.
[[nodiscard]] const SlotMsr* find_slot(uint32_t number);

// Those of `wanted` that the kernel knows.
[[nodiscard]] std::vector<SlotMsr> known_msrs(int vcpu_fd, std::span<const SlotMsr> wanted);

// One MSR; false where the kernel does not know it or refuses the value.
[[nodiscard]] bool get_msr(int vcpu_fd, uint32_t number, uint64_t& value);
[[nodiscard]] bool set_msr(int vcpu_fd, uint32_t number, uint64_t value);

// What a host's kernel offers for a vCPU's state.
struct StateAbilities {
  bool sregs2 = false;
  bool xcrs = true;
  size_t xsave_size = 4096;  // what KVM_GET_XSAVE2 fills; 4096: only KVM_GET_XSAVE
  uint64_t xcr0 = 1;         // bits that the vCPU's CPUID allows
  bool xsave = true;         // the model has XSAVE: XCR0 exists
};

// `held` are the slots that the kernel keeps.
[[nodiscard]] Result<> get_state(int vcpu_fd, const StateAbilities& abilities, std::span<const SlotMsr> held,
                                 CpuState& state);
[[nodiscard]] Result<> set_state(int vcpu_fd, const StateAbilities& abilities, std::span<const SlotMsr> held,
                                 const CpuInterrupts& interrupts, const CpuState& state);

}  // namespace caisson::kvm
