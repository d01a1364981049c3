// The DSDT: what no bus can tell. Device ids are those that operating systems bind to.
#include <fmt/format.h>

#include "boot/acpi/tables.h"

namespace caisson::boot::acpi {

using namespace aml;

namespace {

constexpr uint64_t present = 0xf;  // _STA: present, enabled, shown, functioning

Aml processors(const AcpiConfig& config) {
  Aml out;
  for (unsigned i = 0; i < config.cpus; ++i) {
    out += device(fmt::format("C{:03X}", i), name("_HID", string("ACPI0007")) + name("_UID", integer(i)));
  }
  return out;
}

Aml interrupt_routing(const AcpiConfig::Pci& pci) {
  std::vector<Aml> routes;
  for (const AcpiConfig::PciRoute& route : pci.routes) {
    const uint64_t address = uint64_t{route.device} << 16 | 0xffff;  // any function
    routes.push_back(package({integer(address), integer(route.pin), integer(0), integer(route.gsi)}));
  }
  return name("_PRT", package(routes));
}

Aml host_bridge(const AcpiConfig::Pci& pci, const std::optional<AcpiConfig::HotPlug>& hotplug) {
  Aml windows = bus_numbers(0, static_cast<uint16_t>(pci.buses - 1)) + io_ports(0xcf8, 8);
  for (const auto& window : pci.io) {
    if (window.size == 0) continue;
    windows += io_window(static_cast<uint16_t>(window.base), static_cast<uint16_t>(window.base + window.size - 1));
  }
  for (const auto& window : pci.memory32) {
    if (window.size == 0) continue;
    windows +=
        memory_window32(static_cast<uint32_t>(window.base), static_cast<uint32_t>(window.base + window.size - 1));
  }
  for (const auto& window : pci.memory64) {
    if (window.size != 0) windows += memory_window64(window.base, window.base + window.size - 1, true);
  }
  return device("PCI0", name("_HID", eisa_id("PNP0A08")) + name("_CID", eisa_id("PNP0A03")) + name("_UID", integer(0)) +
                            name("_SEG", integer(0)) + name("_BBN", integer(0)) +
                            name("_CRS", resource_template(windows)) + interrupt_routing(pci) +
                            (hotplug ? hotplug_slots(*hotplug) : Aml{}));
}

// What belongs to the board and to no other device: ECAM (Linux uses it only where it is reserved here) and the ports
// of the fixed hardware.
Aml board(const AcpiConfig& config) {
  Aml resources;
  if (config.pci && config.pci->ecam_base != 0) {
    const uint64_t size = uint64_t{config.pci->buses} << 20;
    if (config.pci->ecam_base + size <= UINT32_MAX) {
      resources += memory32_fixed(static_cast<uint32_t>(config.pci->ecam_base), static_cast<uint32_t>(size));
    } else {
      resources += memory_window64(config.pci->ecam_base, config.pci->ecam_base + size - 1, false);
    }
  }
  if (config.pm1_event != 0) resources += io_ports(config.pm1_event, 4);
  if (config.pm1_control != 0) resources += io_ports(config.pm1_control, 2);
  if (config.pm_timer != 0) resources += io_ports(config.pm_timer, 4);
  if (config.gpe0 != 0) resources += io_ports(config.gpe0, config.gpe0_length);
  if (config.hotplug) resources += io_ports(config.hotplug->port, 16);
  return device(
      "MBRD", name("_HID", eisa_id("PNP0C02")) + name("_UID", integer(1)) + name("_CRS", resource_template(resources)));
}

Aml serial_port(const AcpiConfig::Serial& serial, unsigned number) {
  return device(fmt::format("COM{}", number),
                name("_HID", eisa_id("PNP0501")) + name("_UID", integer(number)) + name("_STA", integer(present)) +
                    name("_CRS", resource_template(io_ports(serial.port, 8) + irq(serial.irq))));
}

Aml keyboard_controller() {
  return device("KBD", name("_HID", eisa_id("PNP0303")) + name("_STA", integer(present)) +
                           name("_CRS", resource_template(io_ports(0x60, 1) + io_ports(0x64, 1) + irq(1)))) +
         device("MOU", name("_HID", eisa_id("PNP0F13")) + name("_STA", integer(present)) +
                           name("_CRS", resource_template(irq(12))));
}

}  // namespace

Aml dsdt_terms(const AcpiConfig& config) {
  Aml system = processors(config) + board(config);
  if (config.pci) system += host_bridge(*config.pci, config.hotplug);
  for (unsigned i = 0; i < config.serial.size(); ++i) system += serial_port(config.serial[i], i + 1);
  if (config.rtc) {
    system +=
        device("RTC", name("_HID", eisa_id("PNP0B00")) + name("_CRS", resource_template(io_ports(0x70, 2) + irq(8))));
  }
  if (config.hpet) {
    system += device("HPET", name("_HID", eisa_id("PNP0103")) +
                                 name("_CRS", resource_template(memory32_fixed(config.hpet->address, 0x400))));
  }
  if (config.keyboard_controller) system += keyboard_controller();
  if (config.pvpanic_port) {
    system += device("PEVT", name("_HID", string("QEMU0001")) + name("_STA", integer(present)) +
                                 name("_CRS", resource_template(io_ports(*config.pvpanic_port, 1))));
  }
  // SLP_TYPa, SLP_TYPb and two reserved values (7.4.2.6)
  return name("\\_S5", package({integer(config.s5_type), integer(config.s5_type), integer(0), integer(0)})) +
         scope("\\_SB", system) + (config.hotplug ? hotplug_event(*config.hotplug) : Aml{});
}

}  // namespace caisson::boot::acpi
