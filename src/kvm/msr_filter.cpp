#include "kvm/msr_filter.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include <linux/kvm.h>

#include "kvm/device.h"
#include "x86/registers.h"

namespace caisson::kvm {
namespace {

using namespace x86;

struct Own {
  uint32_t number;
  bool reads;
};
// IA32_PLATFORM_ID, EBL_CR_POWERON, IA32_PERF_STATUS and IA32_DEBUGCTL have no name in x86/registers.h.
constexpr Own own[] = {
    {msr::tsc, false},
    {0x17, true},
    {msr::apic_base, true},
    {0x2a, true},
    {msr::feature_control, true},
    {msr::tsc_adjust, false},
    {msr::bios_sign_id, true},
    {msr::arch_capabilities, true},
    {msr::mcg_cap, true},
    {0x198, true},
    {msr::misc_enable, true},
    {0x1d9, true},
    {msr::tsc_deadline, true},
};

constexpr uint32_t low_msrs = 0x200;
using Bitmap = std::array<uint8_t, low_msrs / 8>;

// A set bit lets the kernel handle the access.
Bitmap bitmap_of(bool reads, bool kernel_apics) {
  Bitmap bits;
  bits.fill(0xff);
  for (const Own& row : own) {
    if (kernel_apics && row.number == msr::apic_base) continue;
    if (row.number < low_msrs && (row.reads || !reads)) {
      bits[row.number / 8] = static_cast<uint8_t>(bits[row.number / 8] & ~(1u << row.number % 8));
    }
  }
  return bits;
}

}  // namespace

bool own_msr(unsigned number) {
  return std::ranges::any_of(own, [&](const Own& row) { return row.number == number && row.reads; });
}

Result<> set_msr_filter(int vm_fd, bool kernel_apics) {
  kvm_enable_cap exits{};
  exits.cap = KVM_CAP_X86_USER_SPACE_MSR;
  exits.args[0] = KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER;
  if (control(vm_fd, KVM_ENABLE_CAP, &exits) != 0) return fail_errno(errno, "/dev/kvm: have MSR accesses exit");

  Bitmap reads = bitmap_of(true, kernel_apics), writes = bitmap_of(false, kernel_apics);
  uint8_t none = 0;
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  filter.ranges[0] = {.flags = KVM_MSR_FILTER_READ, .nmsrs = low_msrs, .base = 0, .bitmap = reads.data()};
  filter.ranges[1] = {.flags = KVM_MSR_FILTER_WRITE, .nmsrs = low_msrs, .base = 0, .bitmap = writes.data()};
  if (!kernel_apics) {
    filter.ranges[2] = {
        .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, .nmsrs = 1, .base = msr::tsc_deadline, .bitmap = &none};
  }
  if (control(vm_fd, KVM_X86_SET_MSR_FILTER, &filter) != 0) return fail_errno(errno, "/dev/kvm: set the MSR filter");
  return {};
}

}  // namespace caisson::kvm
