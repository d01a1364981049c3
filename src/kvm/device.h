// /dev/kvm: opened, its version and abilities checked.
//   Source   Linux Documentation/virt/kvm/api.rst
//   Threads  any
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <type_traits>

#include <sys/ioctl.h>

#include "base/fd.h"
#include "base/result.h"

namespace caisson::kvm {

// Opens /dev/kvm. For the command line: a VMM gets the descriptor. The error names cause and remedy.
[[nodiscard]] Result<Fd> open_device();

// The one way to the kernel, so that tests can have it fail on purpose (ioctl_faults.h): null is ::ioctl.
using Ioctl = int (*)(int fd, unsigned long request, unsigned long argument);
inline std::atomic<Ioctl> ioctl_for_tests{nullptr};

template <class Argument>
int call(int fd, unsigned long request, Argument argument) {
  unsigned long word;
  if constexpr (std::is_pointer_v<Argument> || std::is_null_pointer_v<Argument>) {
    word = reinterpret_cast<unsigned long>(argument);
  } else {
    word = static_cast<unsigned long>(argument);
  }
  const Ioctl instead = ioctl_for_tests.load(std::memory_order_relaxed);
  return instead != nullptr ? instead(fd, request, word) : ::ioctl(fd, request, word);
}

// An ioctl that a signal does not end early; -1 and errno where it fails.
template <class Argument>
int control(int fd, unsigned long request, Argument argument) {
  int result;
  do {
    result = call(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}

// A /dev/kvm that this engine can work with.
class KvmDevice {
 public:
  // An error where the interface has another version or lacks an ability; it names the first one that is missing.
  [[nodiscard]] static Result<KvmDevice> create(Fd fd);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] Result<Fd> create_vm() const;
  [[nodiscard]] bool has(int capability) const;
  // Bytes of the structure that a vCPU shares with the kernel.
  [[nodiscard]] size_t run_size() const { return run_size_; }

 private:
  KvmDevice() = default;
  Fd fd_;
  size_t run_size_ = 0;
};

}  // namespace caisson::kvm
