#include "machine/boot_plan.h"

#include <algorithm>

#include "devices/chipset/hpet.h"
#include "devices/chipset/layout.h"

namespace caisson::machine {

boot::AcpiConfig acpi_config(const pci::Layout& layout, unsigned cpus, bool pvpanic, bool com2) {
  boot::AcpiConfig acpi;
  acpi.cpus = cpus;
  acpi.local_apic = chipset::local_apic_address;
  acpi.io_apic = {.id = chipset::ioapic_id, .address = chipset::ioapic_address};
  acpi.sci_irq = chipset::sci_gsi;
  acpi.pm1_event = chipset::pm1a_event_port;
  acpi.pm1_control = chipset::pm1a_control_port;
  acpi.pm_timer = chipset::pm_timer_port;
  acpi.pm_timer_32bit = true;
  acpi.gpe0 = chipset::gpe0_port;
  acpi.gpe0_length = chipset::gpe0_length;
  acpi.reset_port = chipset::reset_control_port;
  acpi.reset_value = chipset::reset_value;
  acpi.s5_type = chipset::s5_sleep_type;
  acpi.rtc_century = chipset::rtc_century_index;
  boot::AcpiConfig::Pci& pci = acpi.pci.emplace();
  pci.ecam_base = layout.ecam_base;
  pci.buses = static_cast<uint16_t>(layout.ecam_buses);
  pci.io = {{0x0, 0xcf8}, {0xd00, 0x1'0000 - 0xd00}};
  pci.memory32 = {{layout.mmio32_base, layout.mmio32_size}};
  // With firmware the memory-mapped window lies within.
  if (layout.ecam_base > layout.mmio32_base && layout.ecam_base - layout.mmio32_base < layout.mmio32_size) {
    const uint64_t end = layout.mmio32_base + layout.mmio32_size;
    const uint64_t ecam_end = layout.ecam_base + layout.ecam_size();
    pci.memory32 = {{layout.mmio32_base, layout.ecam_base - layout.mmio32_base}, {ecam_end, end - ecam_end}};
  }
  if (layout.mmio64_size != 0) pci.memory64 = {{layout.mmio64_base, layout.mmio64_size}};
  for (unsigned slot = 1; slot < pci::slot_count; ++slot) {
    for (unsigned pin = 0; pin < 4; ++pin) {
      pci.routes.push_back({static_cast<uint8_t>(slot), static_cast<uint8_t>(pin), pci::intx_gsi(slot, pin)});
    }
  }
  acpi.serial = {{.port = chipset::com1_port, .irq = chipset::com1_irq}};
  if (com2) acpi.serial.push_back({.port = chipset::com2_port, .irq = chipset::com2_irq});
  if (pvpanic) acpi.pvpanic_port = chipset::pvpanic_port;
  return acpi;
}

boot::AcpiConfig::HotPlug hotplug_config(uint32_t slots) {
  return {.port = chipset::hotplug_port, .gpe = chipset::hotplug_gpe, .slots = slots};
}

boot::AcpiConfig::Hpet hpet_config() {
  return {.address = static_cast<uint32_t>(chipset::hpet_address), .capabilities = Hpet::capabilities};
}

bool asks_for_hpet(std::string_view command_line) {
  while (!command_line.empty()) {
    const size_t end = std::min(command_line.find(' '), command_line.size());
    const std::string_view word = command_line.substr(0, end);
    if (word == "clocksource=hpet" || word.starts_with("hpet=")) return true;
    command_line.remove_prefix(std::min(end + 1, command_line.size()));
  }
  return false;
}

boot::SmbiosConfig smbios_config(const x86::CpuModel& model, unsigned cpus, uint64_t tsc_hz) {
  boot::SmbiosConfig smbios;
  const x86::CpuidResult signature = model.cpuid(1, 0, {});
  smbios.cpu_signature = signature.eax;
  smbios.cpu_features = signature.edx;
  smbios.cpu_mhz = static_cast<uint32_t>(tsc_hz / 1'000'000);
  smbios.cpus = cpus;
  return smbios;
}

CpuState entry_state(const boot::EntryPoint& entry, CpuState reset) {
  const auto segment = [](const boot::EntrySegment& from) {
    return SegmentState{
        .base = from.base, .limit = from.limit, .attributes = from.attributes, .selector = from.selector};
  };
  CpuState state = std::move(reset);
  state.gpr = {};
  state.gpr[0] = entry.rax;
  state.gpr[3] = entry.rbx;
  state.gpr[4] = entry.rsp;
  state.gpr[6] = entry.rsi;
  state.rip = entry.rip;
  state.rflags = entry.rflags;
  state.cr0 = entry.cr0;
  state.cr3 = entry.cr3;
  state.cr4 = entry.cr4;
  state.efer = entry.efer;
  for (unsigned i = 0; i < 6; ++i) state.segments[i] = segment(i == 1 ? entry.code : entry.data);
  state.tr = segment(entry.task);
  state.gdtr = {.base = entry.gdt_base, .limit = entry.gdt_limit};
  state.idtr = {.base = 0, .limit = 0};
  return state;
}

}  // namespace caisson::machine
