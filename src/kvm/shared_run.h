// The structure that a vCPU shares with the kernel, mapped while this object lives.
#pragma once

#include <cerrno>
#include <cstddef>
#include <utility>

#include <linux/kvm.h>
#include <sys/mman.h>

#include "base/result.h"

namespace caisson::kvm {

class SharedRun {
 public:
  SharedRun() = default;
  [[nodiscard]] static Result<SharedRun> create(int vcpu_fd, size_t size) {
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    if (at == MAP_FAILED) return fail_errno(errno, "/dev/kvm: map a vCPU's shared memory");
    SharedRun run;
    run.run_ = static_cast<kvm_run*>(at);
    run.size_ = size;
    return run;
  }
  SharedRun(SharedRun&& other) noexcept : run_(std::exchange(other.run_, nullptr)), size_(other.size_) {}
  SharedRun& operator=(SharedRun&& other) noexcept {
    std::swap(run_, other.run_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~SharedRun() {
    if (run_ != nullptr) ::munmap(run_, size_);
  }

  [[nodiscard]] kvm_run* operator->() const { return run_; }
  [[nodiscard]] kvm_run& operator*() const { return *run_; }

 private:
  kvm_run* run_ = nullptr;
  size_t size_ = 0;
};

}  // namespace caisson::kvm
