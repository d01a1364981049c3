// The kernel's local APICs (KVM_CAP_SPLIT_IRQCHIP): how interrupt messages of our devices reach them.
//   Source   Linux Documentation/virt/kvm/api.rst: KVM_CAP_SPLIT_IRQCHIP, KVM_SET_GSI_ROUTING, KVM_IRQFD,
//   KVM_SIGNAL_MSI Models   a route and an eventfd for each message that devices send often; the IOAPIC's
//   level-triggered inputs as the
//            routes whose EOI the kernel tells
//   Threads  any; a lock of its own, inside the device lock
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "base/fd.h"
#include "base/result.h"
#include "bus/interrupt.h"
#include "kvm/device.h"

namespace caisson::kvm {

class KvmApics final : public ApicKeeper {
 public:
  static constexpr unsigned pin_count = 24;

  // Before any vCPU is created. None where the host's kernel lacks something, or refuses; `why` says what.
  [[nodiscard]] static std::unique_ptr<KvmApics> create(const KvmDevice& device, int vm_fd, std::string& why);

  void send_msi(const MsiMessage& message) override;
  [[nodiscard]] bool send_and_tell(const MsiMessage& message) override;
  void set_pin(unsigned pin, std::optional<MsiMessage> message) override;

  // Returns when every message sent before has reached its local APIC: the kernel may pass some on by a thread of its
  // own.
  void drain();

 private:
  // A message has one of these until another one needs it more.
  struct Slot {
    MsiMessage message;
    Fd event;
    uint64_t used = 0;  // value of uses_ when it was sent last
  };
  static constexpr unsigned slot_count = 64;

  explicit KvmApics(int vm_fd) : vm_fd_(vm_fd) {}
  [[nodiscard]] bool signal(const MsiMessage& message) const;
  // With lock_ held.
  [[nodiscard]] Slot* find(const MsiMessage& message);
  [[nodiscard]] bool bind(Slot& slot, bool assign) const;
  bool set_routes();

  const int vm_fd_;
  std::mutex lock_;
  std::array<std::optional<MsiMessage>, pin_count> pins_;
  std::array<Slot, slot_count> slots_;
  unsigned slots_used_ = 0;
  uint64_t uses_ = 0;
  bool sent_ = false;  // by an eventfd, since the last drain()
};

}  // namespace caisson::kvm
