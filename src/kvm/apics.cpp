#include "kvm/apics.h"

#include <algorithm>

#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "kvm/lists.h"

namespace caisson::kvm {
namespace {

struct Needed {
  int number;
  const char* name;
};
constexpr Needed needed[] = {
    {KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP"},
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER"},
};

kvm_irq_routing_entry route(uint32_t gsi, const MsiMessage& message) {
  kvm_irq_routing_entry entry{};
  entry.gsi = gsi;
  entry.type = KVM_IRQ_ROUTING_MSI;
  entry.u.msi.address_lo = static_cast<uint32_t>(message.address);
  entry.u.msi.address_hi = static_cast<uint32_t>(message.address >> 32);
  entry.u.msi.data = message.data;
  return entry;
}

}  // namespace

std::unique_ptr<KvmApics> KvmApics::create(const KvmDevice& device, int vm_fd, std::string& why) {
  for (const Needed& capability : needed) {
    if (device.has(capability.number)) continue;
    why = fmt::format("the host's kernel lacks {}", capability.name);
    return nullptr;
  }
  kvm_enable_cap split{};
  split.cap = KVM_CAP_SPLIT_IRQCHIP;
  split.args[0] = pin_count;
  if (control(vm_fd, KVM_ENABLE_CAP, &split) != 0) {
    why = fail_errno(errno, "the host's kernel refuses local APICs of its own").error().message;
    return nullptr;
  }
  return std::unique_ptr<KvmApics>{new KvmApics{vm_fd}};
}

bool KvmApics::signal(const MsiMessage& message) const {
  kvm_msi msi{};
  msi.address_lo = static_cast<uint32_t>(message.address);
  msi.address_hi = static_cast<uint32_t>(message.address >> 32);
  msi.data = message.data;
  return control(vm_fd_, KVM_SIGNAL_MSI, &msi) > 0;
}

bool KvmApics::bind(Slot& slot, bool assign) const {
  kvm_irqfd binding{};
  binding.fd = static_cast<uint32_t>(slot.event.get());
  binding.gsi = pin_count + static_cast<uint32_t>(&slot - slots_.data());
  binding.flags = assign ? 0 : KVM_IRQFD_FLAG_DEASSIGN;
  return control(vm_fd_, KVM_IRQFD, &binding) == 0;
}

bool KvmApics::set_routes() {
  const auto pins =
      static_cast<unsigned>(std::ranges::count_if(pins_, [](const auto& pin) { return pin.has_value(); }));
  const List<kvm_irq_routing_entry> list{pins + slots_used_};
  auto next = list.entries().begin();
  for (unsigned pin = 0; pin < pin_count; ++pin) {
    if (pins_[pin]) *next++ = route(pin, *pins_[pin]);
  }
  for (unsigned i = 0; i < slots_used_; ++i) *next++ = route(pin_count + i, slots_[i].message);
  return control(vm_fd_, set_gsi_routing, list.get()) == 0;
}

KvmApics::Slot* KvmApics::find(const MsiMessage& message) {
  const auto used = std::span(slots_).first(slots_used_);
  if (const auto found = std::ranges::find(used, message, &Slot::message); found != used.end()) return &*found;
  if (slots_used_ == slot_count) {
    Slot& oldest = *std::ranges::min_element(used, {}, &Slot::used);
    const MsiMessage before = std::exchange(oldest.message, message);
    if (set_routes()) return &oldest;
    oldest.message = before;
    return nullptr;
  }
  Slot& fresh = slots_[slots_used_];
  fresh.event = Fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (!fresh.event.valid()) return nullptr;
  fresh.message = message;
  ++slots_used_;
  if (set_routes() && bind(fresh, true)) return &fresh;
  --slots_used_;
  fresh.event = Fd{};
  (void)set_routes();
  return nullptr;
}

void KvmApics::send_msi(const MsiMessage& message) {
  const std::lock_guard hold(lock_);
  if (Slot* slot = find(message)) {
    slot->used = ++uses_;
    sent_ = true;
    constexpr uint64_t one = 1;
    if (::write(slot->event.get(), &one, sizeof one) == sizeof one) return;
  }
  (void)signal(message);
}

bool KvmApics::send_and_tell(const MsiMessage& message) { return signal(message); }

void KvmApics::set_pin(unsigned pin, std::optional<MsiMessage> message) {
  if (pin >= pin_count) return;
  const std::lock_guard hold(lock_);
  if (pins_[pin] == message) return;
  pins_[pin] = message;
  if (!set_routes()) log::error("{}", fail_errno(errno, "/dev/kvm: route interrupts").error().message);
}

void KvmApics::drain() {
  const std::lock_guard hold(lock_);
  if (!std::exchange(sent_, false)) return;
  // Taking the eventfd away waits for the kernel's thread.
  for (Slot& slot : std::span(slots_).first(slots_used_)) {
    if (!bind(slot, false) || !bind(slot, true)) {
      log::error("{}", fail_errno(errno, "/dev/kvm: bind an interrupt").error().message);
    }
  }
}

}  // namespace caisson::kvm
