// For tests: has chosen ioctls on /dev/kvm fail while an object of this class lives.
//   Threads  made and changed while nothing calls; counted by any
#pragma once

#include <atomic>
#include <cerrno>
#include <functional>
#include <memory>
#include <optional>

#include <linux/kvm.h>

#include "kvm/device.h"

namespace caisson::kvm::test {

class IoctlFaults {
 public:
  // The result for an ioctl in place of the kernel's; none: the kernel is asked. Sets errno where it answers -1.
  using Answer = std::function<std::optional<int>(unsigned long request, unsigned long argument)>;

  explicit IoctlFaults(Answer answer) : answer_(std::move(answer)) {
    current_ = this;
    ioctl_for_tests = [](int fd, unsigned long request, unsigned long argument) {
      if (const auto result = current_->answer_(request, argument)) return *result;
      return ::ioctl(fd, request, argument);
    };
  }
  ~IoctlFaults() { ioctl_for_tests = nullptr; }
  IoctlFaults(const IoctlFaults&) = delete;
  IoctlFaults& operator=(const IoctlFaults&) = delete;

  // Every such request fails with `error`, from the one after `passes` on.
  static Answer failing(unsigned long wanted, int error, unsigned passes = 0) {
    return [wanted, error, passes, seen = std::make_shared<std::atomic<unsigned>>(0)](
               unsigned long request, unsigned long) -> std::optional<int> {
      if (request != wanted || (*seen)++ < passes) return std::nullopt;
      errno = error;
      return -1;
    };
  }
  // The host's kernel has no such capability.
  static Answer lacking(unsigned long capability) {
    return [capability](unsigned long request, unsigned long argument) -> std::optional<int> {
      return request == KVM_CHECK_EXTENSION && argument == capability ? std::optional{0} : std::nullopt;
    };
  }

 private:
  static inline IoctlFaults* current_ = nullptr;
  Answer answer_;
};

}  // namespace caisson::kvm::test
