#include "devices/chipset/pci_hotplug.h"

#include <bit>

#include "devices/chipset/layout.h"

namespace caisson {
namespace {

enum Register : uint64_t { Up, Down, Eject, Present };

constexpr uint32_t bit(unsigned slot) { return 1u << (slot & 31); }

}  // namespace

void PciHotPlug::inserted(unsigned slot) {
  state_.up |= bit(slot);
  acpi_.raise_gpe(chipset::hotplug_gpe);
}

void PciHotPlug::want_back(unsigned slot) {
  state_.down |= bit(slot);
  acpi_.raise_gpe(chipset::hotplug_gpe);
}

void PciHotPlug::want_no_more(unsigned slot) { state_.down &= ~bit(slot); }

uint64_t PciHotPlug::read(unsigned, uint64_t offset, unsigned) {
  uint32_t value = 0;
  switch (offset / 4) {
    case Up: value = state_.up; break;
    case Down: value = state_.down; break;
    case Present: value = slots_ != nullptr ? slots_->occupied() : 0; break;
    default: break;
  }
  return value >> (8 * (offset % 4));
}

void PciHotPlug::write(unsigned, uint64_t offset, unsigned, uint64_t value) {
  // An access that crosses registers ends with its first.
  const auto bits = static_cast<uint32_t>(value << (8 * (offset % 4)));
  switch (offset / 4) {
    case Up: state_.up &= ~bits; break;
    case Down: state_.down &= ~bits; break;
    case Eject:
      for (uint32_t left = slots_ != nullptr ? bits : 0; left != 0; left &= left - 1) {
        slots_->ejected(static_cast<unsigned>(std::countr_zero(left)));
      }
      break;
    default: break;
  }
}

}  // namespace caisson
