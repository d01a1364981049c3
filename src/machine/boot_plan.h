// What the loaders and the firmware tables are told about the machine: the devices' layouts as plain values.
#pragma once

#include <string>
#include <string_view>

#include "boot/boot.h"
#include "devices/pci/layout.h"
#include "engine/cpu_state.h"
#include "x86/cpu_model.h"

namespace caisson::machine {

[[nodiscard]] boot::AcpiConfig acpi_config(const pci::Layout& layout, unsigned cpus, bool pvpanic, bool com2);
[[nodiscard]] boot::AcpiConfig::Hpet hpet_config();
// `slots`: whose devices come and go.
[[nodiscard]] boot::AcpiConfig::HotPlug hotplug_config(uint32_t slots);
// Whether a kernel's command line has clocksource=hpet or hpet=….
[[nodiscard]] bool asks_for_hpet(std::string_view command_line);
[[nodiscard]] boot::SmbiosConfig smbios_config(const x86::CpuModel& model, unsigned cpus, uint64_t tsc_hz);
// The first CPU's state at a kernel's entry; `reset` is its state after reset.
[[nodiscard]] CpuState entry_state(const boot::EntryPoint& entry, CpuState reset);

}  // namespace caisson::machine
