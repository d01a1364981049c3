#include "kvm/device.h"

#include <fcntl.h>
#include <linux/kvm.h>

namespace caisson::kvm {
namespace {

struct Needed {
  int number;
  const char* name;
};
constexpr Needed needed[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_USER_NMI, "KVM_CAP_USER_NMI"},
    {KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
};

}  // namespace

Result<Fd> open_device() {
  Fd fd{::open("/dev/kvm", O_RDWR | O_CLOEXEC)};
  if (fd.valid()) return fd;
  switch (const int error = errno; error) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return fail(
          "/dev/kvm is not there; switch virtualization on in the host's firmware and load the module kvm_intel or "
          "kvm_amd, or use --engine jit");
    case EACCES:
    case EPERM:
      return fail(
          "/dev/kvm may not be opened by this user; as root: usermod -a -G kvm USER (and log in again), or use "
          "--engine jit");
    default: return fail_errno(error, "/dev/kvm cannot be opened; use --engine jit");
  }
}

Result<KvmDevice> KvmDevice::create(Fd fd) {
  KvmDevice device;
  device.fd_ = std::move(fd);
  const int version = control(device.fd(), KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION) {
    return fail("/dev/kvm: version {} of the interface instead of {}; use --engine jit", version, KVM_API_VERSION);
  }
  for (const Needed& capability : needed) {
    if (device.has(capability.number)) continue;
    return fail("/dev/kvm: the host's kernel lacks {}; use Linux 5.10 or newer, or --engine jit", capability.name);
  }
  const int size = control(device.fd(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (size < static_cast<int>(sizeof(kvm_run))) return fail_errno(errno, "/dev/kvm: size of a vCPU's shared memory");
  device.run_size_ = static_cast<size_t>(size);
  return device;
}

Result<Fd> KvmDevice::create_vm() const {
  Fd vm{control(fd(), KVM_CREATE_VM, 0)};
  if (!vm.valid()) return fail_errno(errno, "/dev/kvm: create a virtual machine; use --engine jit");
  return vm;
}

bool KvmDevice::has(int capability) const { return control(fd(), KVM_CHECK_EXTENSION, capability) > 0; }

}  // namespace caisson::kvm
