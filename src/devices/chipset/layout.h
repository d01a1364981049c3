// Where the chipset stands: ports, addresses and interrupt numbers, stated once. Plain values, so that src/machine can
// hand them to the ACPI builder in src/boot, which may not include devices.
#pragma once

#include <cstdint>

namespace caisson::chipset {

// Ports.
inline constexpr uint16_t pic_primary_port = 0x20;
inline constexpr uint16_t pit_port = 0x40;
inline constexpr uint16_t i8042_data_port = 0x60;
inline constexpr uint16_t system_control_b_port = 0x61;  // speaker gate, counter 2 output, refresh toggle
inline constexpr uint16_t i8042_command_port = 0x64;
inline constexpr uint16_t rtc_port = 0x70;
inline constexpr uint16_t system_control_a_port = 0x92;  // fast A20 and reset
inline constexpr uint16_t pic_secondary_port = 0xa0;
inline constexpr uint16_t debug_exit_port = 0xf4;
inline constexpr uint16_t com2_port = 0x2f8;
inline constexpr uint16_t com1_port = 0x3f8;
inline constexpr uint16_t elcr_port = 0x4d0;
inline constexpr uint16_t pvpanic_port = 0x505;
inline constexpr uint16_t pm1a_event_port = 0x600;    // 4 bytes
inline constexpr uint16_t pm1a_control_port = 0x604;  // 2 bytes
inline constexpr uint16_t pm_timer_port = 0x608;      // 4 bytes, 32 bits count (FADT: TMR_VAL_EXT)
inline constexpr uint16_t gpe0_port = 0x620;
inline constexpr uint16_t gpe0_length = 4;       // 2 bytes of status, 2 of enable
inline constexpr uint16_t hotplug_port = 0x6c0;  // pci_hotplug.h
inline constexpr uint16_t hotplug_length = 16;
inline constexpr uint16_t reset_control_port = 0xcf9;

// The general-purpose event of the PCI slots' hot-plug registers.
inline constexpr unsigned hotplug_gpe = 1;

// FADT RESET_VALUE for RESET_REG = reset_control_port; PM1a_CNT.SLP_TYP of \_S5.
inline constexpr uint8_t reset_value = 0x06;
inline constexpr uint8_t s5_sleep_type = 5;
// FADT CENTURY: where in CMOS the century stands.
inline constexpr uint8_t rtc_century_index = 0x32;
// CPUs beyond the first, in CMOS, where SeaBIOS looks for it.
inline constexpr uint8_t cmos_more_cpus = 0x5f;

// Memory-mapped.
inline constexpr uint64_t ioapic_address = 0xfec0'0000;
inline constexpr uint64_t ioapic_length = 0x1000;
inline constexpr uint64_t hpet_address = 0xfed0'0000;
inline constexpr uint64_t hpet_length = 0x400;
inline constexpr uint64_t local_apic_address = 0xfee0'0000;

// Global system interrupts: ISA interrupt n is GSI n, but ISA 0 (the PIT) comes in at GSI 2 (MADT source override).
inline constexpr unsigned gsi_count = 24;
inline constexpr unsigned isa_irq_count = 16;
inline constexpr unsigned pit_irq = 0;
inline constexpr unsigned pit_gsi = 2;
inline constexpr unsigned keyboard_irq = 1;
inline constexpr unsigned com2_irq = 3;
inline constexpr unsigned com1_irq = 4;
inline constexpr unsigned rtc_irq = 8;
inline constexpr unsigned sci_gsi = 9;  // level, active high (MADT source override)
inline constexpr unsigned mouse_irq = 12;
inline constexpr unsigned pci_gsi_first = 16;
inline constexpr unsigned pci_gsi_count = 8;

// APIC ids: CPU n has id n.
inline constexpr unsigned max_cpus = 255;
inline constexpr uint8_t ioapic_id = 0;
inline constexpr uint64_t apic_timer_hz = 1'000'000'000;  // before the divide configuration register
inline constexpr uint64_t pm_timer_hz = 3'579'545;
inline constexpr uint64_t pit_hz = 1'193'182;

}  // namespace caisson::chipset
