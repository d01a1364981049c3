#include "kvm/apic_state.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <linux/kvm.h>

#include "kvm/device.h"
#include "kvm/state.h"

namespace caisson::kvm {
namespace {

using TimerMode = LocalApicState::TimerMode;

// Numbers of registers: offset in the page / 16.
enum Register : unsigned {
  Id = 0x02,
  Tpr = 0x08,
  Ldr = 0x0d,
  Dfr = 0x0e,
  Svr = 0x0f,
  Isr = 0x10,
  Tmr = 0x18,
  Irr = 0x20,
  Esr = 0x28,
  IcrLow = 0x30,
  IcrHigh = 0x31,
  Lvt = 0x32,
  InitialCount = 0x38,
  CurrentCount = 0x39,
  DivideConfiguration = 0x3e,
};
constexpr uint64_t base_x2apic = 1u << 10;

uint32_t get(const kvm_lapic_state& page, unsigned number) {
  uint32_t value;
  std::memcpy(&value, page.regs + 16 * number, sizeof value);
  return value;
}
void put(kvm_lapic_state& page, unsigned number, uint32_t value) {
  std::memcpy(page.regs + 16 * number, &value, sizeof value);
}

}  // namespace

Result<> get_apic(int vcpu_fd, const Clock& clock, uint64_t tsc_offset, LocalApicState& state) {
  kvm_lapic_state page{};
  // The time belongs to the count: read close to each other.
  const uint64_t now = clock.now_ns();
  if (control(vcpu_fd, KVM_GET_LAPIC, &page) != 0) return fail_errno(errno, "/dev/kvm: read a local APIC");
  if (!get_msr(vcpu_fd, x86::msr::apic_base, state.apic_base)) return fail("/dev/kvm: read IA32_APIC_BASE");
  const bool x2apic = (state.apic_base & base_x2apic) != 0;
  state.tpr = get(page, Tpr);
  state.ldr = x2apic ? 0 : get(page, Ldr);
  state.dfr = x2apic ? 0xffff'ffff : get(page, Dfr);
  state.svr = get(page, Svr);
  state.esr = get(page, Esr);
  state.pending_errors = 0;
  state.icr = uint64_t{get(page, IcrHigh)} << 32 | get(page, IcrLow);
  for (unsigned i = 0; i < LocalApicState::lvt_count; ++i) state.lvt[i] = get(page, Lvt + i);
  for (unsigned i = 0; i < 8; ++i) {
    state.isr[i] = get(page, Isr + i);
    state.tmr[i] = get(page, Tmr + i);
    state.irr[i] = get(page, Irr + i);
  }
  state.initial_count = get(page, InitialCount);
  state.divide_configuration = get(page, DivideConfiguration);
  state.timer_deadline_ns = 0;
  state.tsc_deadline = 0;
  const uint32_t left = get(page, CurrentCount);
  switch (state.timer_mode()) {
    case TimerMode::TscDeadline: {
      state.initial_count = 0;
      uint64_t deadline = 0;
      (void)get_msr(vcpu_fd, x86::msr::tsc_deadline, deadline);
      if (deadline != 0) state.tsc_deadline = std::max<uint64_t>(deadline - tsc_offset, 1);
      break;
    }
    case TimerMode::Periodic:
      if (state.initial_count != 0) state.timer_deadline_ns = now + std::max(left, 1u) * state.timer_divisor();
      break;
    default:
      if (state.initial_count != 0 && left != 0) state.timer_deadline_ns = now + left * state.timer_divisor();
      break;
  }
  return {};
}

Result<> set_apic(int vcpu_fd, unsigned index, const Clock& clock, uint64_t tsc_offset, const LocalApicState& state) {
  kvm_lapic_state page{};
  put(page, Id, index << 24);
  put(page, Tpr, state.tpr);
  put(page, Ldr, state.ldr);
  put(page, Dfr, state.dfr);
  put(page, Svr, state.svr);
  put(page, Esr, state.esr | state.pending_errors);
  put(page, IcrLow, static_cast<uint32_t>(state.icr));
  put(page, IcrHigh, static_cast<uint32_t>(state.icr >> 32));
  for (unsigned i = 0; i < LocalApicState::lvt_count; ++i) put(page, Lvt + i, state.lvt[i]);
  for (unsigned i = 0; i < 8; ++i) {
    put(page, Isr + i, state.isr[i]);
    put(page, Tmr + i, state.tmr[i]);
    put(page, Irr + i, state.irr[i]);
  }
  put(page, DivideConfiguration, state.divide_configuration);
  // The kernel counts down from what is left, and starts a count that has run down anew.
  if (state.timer_mode() != TimerMode::TscDeadline && state.timer_deadline_ns != 0) {
    const uint64_t now = clock.now_ns();
    const uint64_t left = state.timer_deadline_ns > now ? state.timer_deadline_ns - now : 0;
    put(page, InitialCount, state.initial_count);
    put(page, CurrentCount,
        static_cast<uint32_t>(
            std::clamp<uint64_t>(left / state.timer_divisor(), 1, std::max(state.initial_count, 1u))));
  }
  // Twice: where the kernel's timer was in TSC-deadline mode before, the first time leaves that mode, and by that clears
  // the count.
  for (unsigned i = 0; i < 2; ++i) {
    if (control(vcpu_fd, KVM_SET_LAPIC, &page) != 0) return fail_errno(errno, "/dev/kvm: set a local APIC");
  }
  if (state.timer_mode() == TimerMode::TscDeadline && state.tsc_deadline != 0) {
    if (!set_msr(vcpu_fd, x86::msr::tsc_deadline, std::max<uint64_t>(state.tsc_deadline + tsc_offset, 1))) {
      return fail("/dev/kvm: set IA32_TSC_DEADLINE");
    }
  }
  return {};
}

}  // namespace caisson::kvm
