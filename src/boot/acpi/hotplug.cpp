// PCI devices that come and go while the machine runs: what the guest's ACPI does when it is told.
//   Spec     ACPI 6.5, 5.6.4.1.1 (GPE methods), 5.6.6 (Notify values), 6.1.1 (_ADR), 6.1.11 (_SUN), 6.3.3 (_EJ0), 6.3.7
//            (_STA); the registers are those of devices/chipset/pci_hotplug.h
#include <fmt/format.h>

#include "boot/acpi/tables.h"

namespace caisson::boot::acpi {

using namespace aml;

namespace {

constexpr uint64_t device_check = 1, eject_request = 3;
constexpr uint64_t present = 0xf;

std::string slot_name(unsigned slot) { return fmt::format("S{:02X}", slot); }

Aml registers(const AcpiConfig::HotPlug& hotplug) {
  return port_region("HPRG", hotplug.port, 16) + dword_field("HPRG", {"HPUP", "HPDN", "HPEJ", "HPST"});
}

// Every slot is there for good; whether there is a device in it says _STA.
Aml slot(unsigned number) {
  const Aml bit = integer(uint64_t{1} << number);
  return device(slot_name(number),
                name("_ADR", integer(uint64_t{number} << 16)) + name("_SUN", integer(number)) +
                    method("_EJ0", 1, store(bit, name_string("HPEJ"))) +
                    method("_STA", 0,
                           if_true(bit_and(name_string("HPST"), bit), return_value(integer(present))) +
                               return_value(integer(0))));
}

}  // namespace

// Beside the other devices of the host bridge.
Aml hotplug_slots(const AcpiConfig::HotPlug& hotplug) {
  Aml out = registers(hotplug);
  Aml tell = store(name_string("HPUP"), local(0)) + store(local(0), name_string("HPUP")) +
             store(name_string("HPDN"), local(1)) + store(local(1), name_string("HPDN"));
  for (unsigned number = 0; number < 32; ++number) {
    if ((hotplug.slots >> number & 1) == 0) continue;
    out += slot(number);
    const Aml bit = integer(uint64_t{1} << number);
    tell += if_true(bit_and(local(0), bit), notify(slot_name(number), device_check));
    tell += if_true(bit_and(local(1), bit), notify(slot_name(number), eject_request));
  }
  return out + method("HPEV", 0, tell, true);
}

// An edge: the status bit is cleared before the registers are read, so no request is lost.
Aml hotplug_event(const AcpiConfig::HotPlug& hotplug) {
  return scope("\\_GPE", method(fmt::format("_E{:02X}", hotplug.gpe), 0, name_string("\\_SB_.PCI0.HPEV")));
}

}  // namespace caisson::boot::acpi
