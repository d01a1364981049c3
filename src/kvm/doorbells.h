// Doorbells that the kernel passes on: an ioeventfd for each, watched by the event loop.
//   Source   Linux Documentation/virt/kvm/api.rst, KVM_IOEVENTFD
//   Threads  under the device lock
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "bus/doorbell.h"
#include "kvm/device.h"

namespace caisson::kvm {

class KvmDoorbells final : public DoorbellBinder {
 public:
  // None where the host's kernel cannot do it for writes of any size.
  [[nodiscard]] static std::unique_ptr<KvmDoorbells> create(const KvmDevice& device, int vm_fd, EventLoop& loop);
  ~KvmDoorbells() override;

  [[nodiscard]] bool bind(uint64_t address, std::function<void()> ring) override;
  void unbind(uint64_t address) override;

 private:
  struct Bound {
    Fd event;
    std::function<void()> ring;
  };
  KvmDoorbells(int vm_fd, EventLoop& loop) : vm_fd_(vm_fd), loop_(loop) {}
  [[nodiscard]] bool tell_kernel(uint64_t address, const Bound& bound, bool assign) const;

  const int vm_fd_;
  EventLoop& loop_;
  std::map<uint64_t, Bound> bound_;
};

}  // namespace caisson::kvm
