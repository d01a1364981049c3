#include "devices/pci/pci_device.h"

#include <bit>

#include "base/check.h"

namespace caisson::pci {
namespace {

constexpr uint32_t bar_io = 1;
constexpr uint32_t bar_wide = 2u << 1;
constexpr uint32_t bar_prefetchable = 1u << 3;

constexpr unsigned bar_register(unsigned bar) { return base_address + 4 * bar; }

}  // namespace

void PciDevice::add_bar(unsigned bar, const Bar& description) {
  CAISSON_CHECK(bar + (description.wide ? 1 : 0) < bar_count && std::has_single_bit(description.size));
  if (description.io) {
    CAISSON_CHECK(!description.wide && description.size >= 4 && description.size <= 256);
    config_.define(command, 2, 0, command_writable | command_io);
  } else {
    CAISSON_CHECK(description.size >= page_size && (description.wide || description.size <= 0x8000'0000));
  }
  bars_[bar] = description;
  place_bar(bar, 0);
}

void PciDevice::place_bar(unsigned bar, uint64_t address) {
  const Bar& description = bars_[bar];
  const uint64_t mask = ~(description.size - 1);
  CAISSON_CHECK(description.size != 0 && (address & ~mask) == 0);
  const uint32_t type =
      description.io ? bar_io : (description.wide ? bar_wide : 0) | (description.prefetchable ? bar_prefetchable : 0);
  config_.define(bar_register(bar), 4, static_cast<uint32_t>(address) | type, static_cast<uint32_t>(mask));
  if (description.wide) {
    config_.define(bar_register(bar + 1), 4, static_cast<uint32_t>(address >> 32), static_cast<uint32_t>(mask >> 32));
  }
}

uint64_t PciDevice::bar_address(unsigned bar) const {
  uint64_t address = config_.get(bar_register(bar), 4) & (bars_[bar].io ? ~3u : ~0xfu);
  if (bars_[bar].wide) address |= uint64_t{config_.get(bar_register(bar + 1), 4)} << 32;
  return address;
}

uint32_t PciDevice::config_read(unsigned offset, unsigned size) { return config_.read(offset, size); }

void PciDevice::config_write(unsigned offset, unsigned size, uint32_t value) {
  config_.write(offset, size, value);
  if (offset >= bar_register(bar_count)) return;
  update_intx();
  if (slot_ != nullptr) slot_->bars_changed();
}

void PciDevice::set_intx(bool asserted) {
  const uint32_t others = config_.get(status, 2) & ~uint32_t{status_interrupt};
  config_.set(status, 2, others | (asserted ? status_interrupt : 0));
  update_intx();
}

void PciDevice::update_intx() {
  if (slot_ == nullptr || pin() == 0) return;
  const bool asserted = (config_.get(status, 2) & status_interrupt) != 0;
  slot_->set_intx(asserted && (config_.get(command, 2) & command_intx_disable) == 0);
}

void PciDevice::reset_config() {
  config_.reset();
  update_intx();
  if (slot_ != nullptr) slot_->bars_changed();
}

Result<> PciDevice::restore_config(const ConfigSpace::State& state) {
  if (auto done = config_.restore(state); !done) return done;
  update_intx();
  if (slot_ != nullptr) slot_->bars_changed();
  return {};
}

}  // namespace caisson::pci
