#include "kvm/doorbells.h"

#include <linux/kvm.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace caisson::kvm {
namespace {

bool take_ring(const Fd& event) {
  uint64_t count;
  return ::read(event.get(), &count, sizeof count) == sizeof count;
}

}  // namespace

std::unique_ptr<KvmDoorbells> KvmDoorbells::create(const KvmDevice& device, int vm_fd, EventLoop& loop) {
  if (!device.has(KVM_CAP_IOEVENTFD) || !device.has(KVM_CAP_IOEVENTFD_ANY_LENGTH)) return nullptr;
  return std::unique_ptr<KvmDoorbells>{new KvmDoorbells{vm_fd, loop}};
}

KvmDoorbells::~KvmDoorbells() {
  for (const auto& [address, bound] : bound_) loop_.unwatch(bound.event.get());
}

bool KvmDoorbells::tell_kernel(uint64_t address, const Bound& bound, bool assign) const {
  kvm_ioeventfd request{};
  request.addr = address;
  request.fd = bound.event.get();
  request.flags = assign ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN;
  return control(vm_fd_, KVM_IOEVENTFD, &request) == 0;
}

bool KvmDoorbells::bind(uint64_t address, std::function<void()> ring) {
  Bound fresh{Fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)}, std::move(ring)};
  if (!fresh.event.valid() || bound_.contains(address) || !tell_kernel(address, fresh, true)) return false;
  const Bound& bound = bound_.emplace(address, std::move(fresh)).first->second;
  loop_.watch(bound.event.get(), EPOLLIN, [&bound](uint32_t) {
    if (take_ring(bound.event)) bound.ring();
  });
  return true;
}

void KvmDoorbells::unbind(uint64_t address) {
  const auto found = bound_.find(address);
  if (found == bound_.end()) return;
  (void)tell_kernel(address, found->second, false);
  loop_.unwatch(found->second.event.get());
  const Bound bound = std::move(found->second);
  bound_.erase(found);
  if (take_ring(bound.event)) bound.ring();
}

}  // namespace caisson::kvm
