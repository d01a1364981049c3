#include "devices/chipset/apic_bus.h"

#include "base/check.h"
#include "devices/chipset/layout.h"
#include "devices/chipset/local_apic.h"

namespace caisson {
namespace {

constexpr uint32_t broadcast_narrow = 0xff;
constexpr uint32_t broadcast_wide = 0xffff'ffff;

bool is_broadcast(const ApicMessage& message) {
  return message.destination == (message.wide ? broadcast_wide : broadcast_narrow);
}

// 11.11.1 and 11.11.2.
MsiMessage to_msi(const ApicMessage& message) {
  return {.address = uint64_t{chipset::local_apic_address} | (message.destination & 0xff) << 12 |
                     (message.logical ? 1u << 2 : 0),
          .data = message.vector | static_cast<uint32_t>(message.mode) << 8 | (message.level ? 3u << 14 : 0)};
}

}  // namespace

ApicBus::ApicBus(std::mutex& device_lock, Clock& clock, const Options& options) : device_lock_(device_lock) {
  CAISSON_CHECK(options.cpus >= 1 && options.cpus <= chipset::max_cpus);
  apics_.reserve(options.cpus);
  for (unsigned index = 0; index < options.cpus; ++index) {
    apics_.push_back(std::make_unique<LocalApic>(*this, clock, index, options.physical_bits, options.x2apic));
  }
}

ApicBus::~ApicBus() = default;

// SDM vol. 3, 11.11.1 and 11.11.2.
void ApicBus::send_msi(uint64_t address, uint32_t data) {
  if (address >> 20 != 0xfee) {
    if (bad_msi_.allow()) log::warning("interrupt message to {:#x}, where no local APIC is: dropped", address);
    return;
  }
  const bool level = (data >> 15 & 1) != 0;
  const bool asserted = (data >> 14 & 1) != 0;
  if (level && !asserted) return;
  if (keeper_ != nullptr) {
    keeper_->send_msi({address, data});
    return;
  }
  const bool redirection_hint = (address >> 3 & 1) != 0;
  ApicMessage message{.destination = static_cast<uint32_t>(address >> 12 & 0xff),
                      .logical = (address >> 2 & 1) != 0,
                      .mode = static_cast<DeliveryMode>(data >> 8 & 7),
                      .vector = static_cast<uint8_t>(data),
                      .level = level};
  if (redirection_hint && message.mode == DeliveryMode::Fixed) message.mode = DeliveryMode::LowestPriority;
  deliver(message);
}

void ApicBus::set_keeper(ApicKeeper* keeper) {
  keeper_ = keeper;
  for (const auto& apic : apics_) keeper != nullptr ? apic->keep() : apic->release();
  if (keeper != nullptr && eoi_listener_ != nullptr) eoi_listener_->announce_pins();
}

void ApicBus::set_pin(unsigned pin, const std::optional<ApicMessage>& message) {
  if (keeper_ != nullptr) keeper_->set_pin(pin, message ? std::optional{to_msi(*message)} : std::nullopt);
}

bool ApicBus::deliver(const ApicMessage& message) {
  if (keeper_ != nullptr) {
    // SMI and ExtINT go nowhere, as with our own.
    if (message.mode == DeliveryMode::Smi || message.mode == DeliveryMode::Reserved3 ||
        message.mode == DeliveryMode::ExtInt) {
      return false;
    }
    if (message.level) return keeper_->send_and_tell(to_msi(message));
    keeper_->send_msi(to_msi(message));
    return true;
  }
  if (is_broadcast(message)) {
    if (message.mode == DeliveryMode::LowestPriority) return deliver_lowest_priority(message);
    return broadcast(message, nullptr);
  }
  if (!message.logical) {
    // The id of an APIC is its index, in either mode.
    if (message.destination >= apics_.size()) return false;
    return apics_[message.destination]->accept(message.mode, message.vector, message.level);
  }
  if (message.mode == DeliveryMode::LowestPriority) return deliver_lowest_priority(message);
  bool taken = false;
  for (const auto& apic : apics_) {
    if (apic->matches_logical(message.destination, message.wide)) {
      taken |= apic->accept(message.mode, message.vector, message.level);
    }
  }
  return taken;
}

bool ApicBus::broadcast(const ApicMessage& message, const LocalApic* except) {
  bool taken = false;
  for (const auto& apic : apics_) {
    if (apic.get() != except) taken |= apic->accept(message.mode, message.vector, message.level);
  }
  return taken;
}

// 11.6.2.4: the destination with the lowest processor priority takes it. The manual leaves ties to the implementation;
// here the vector chooses among the tied, so that different vectors spread and one vector stays where its data is warm.
bool ApicBus::deliver_lowest_priority(const ApicMessage& message) {
  const auto matches = [&](const LocalApic& apic) {
    if (!apic.accepts_fixed()) return false;
    return is_broadcast(message) || apic.matches_logical(message.destination, message.wide);
  };
  unsigned lowest = 0x100;
  unsigned tied = 0;
  for (const auto& apic : apics_) {
    if (!matches(*apic)) continue;
    const unsigned priority = apic->processor_priority();
    if (priority < lowest) {
      lowest = priority;
      tied = 0;
    }
    if (priority == lowest) ++tied;
  }
  if (tied == 0) return false;
  // Priorities move while we look: whoever is still tied counts, and the last one seen takes what is left over.
  unsigned skip = message.vector % tied;
  LocalApic* chosen = nullptr;
  for (const auto& apic : apics_) {
    if (!matches(*apic)) continue;
    if (chosen == nullptr) chosen = apic.get();
    if (apic->processor_priority() != lowest) continue;
    chosen = apic.get();
    if (skip-- == 0) break;
  }
  return chosen != nullptr && chosen->accept(DeliveryMode::Fixed, message.vector, message.level);
}

void ApicBus::end_of_interrupt(uint8_t vector) {
  if (eoi_listener_ == nullptr) return;
  const std::lock_guard hold(device_lock_);
  eoi_listener_->end_of_interrupt(vector);
}

std::optional<uint8_t> ApicBus::acknowledge_ext_int() {
  if (ext_int_source_ == nullptr) return std::nullopt;
  const std::lock_guard hold(device_lock_);
  return ext_int_source_->acknowledge_ext_int();
}

void ApicBus::ExtIntLine::set(bool high) { owner_.apics_[0]->set_lint0(high); }

}  // namespace caisson
