// The ACPI tables of the machine.
//   Spec     ACPI 6.5, chapter 5 (tables), 4.8 (fixed hardware); PCI Firmware 3.3, 4.1 (MCFG); IA-PC HPET 1.0a, 3.2.4
//   Models   RSDP, XSDT, FADT, FACS, DSDT (dsdt.cpp), MADT, MCFG, HPET
//   Omits    SMM (the machine is always in ACPI mode), PIC-mode interrupt routing (_PRT names GSIs only), sleep states
//   but S5 Threads  none
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "boot/acpi/aml.h"
#include "memory/guest_memory.h"

namespace caisson::boot {

// Everything the tables say about the machine, as plain values; machine/ fills it from the devices' layouts.
struct AcpiConfig {
  unsigned cpus = 1;  // APIC ids 0 … cpus - 1
  uint32_t local_apic = 0xfee0'0000;
  struct IoApic {
    uint8_t id = 0;
    uint32_t address = 0xfec0'0000;
    uint32_t gsi_base = 0;
  } io_apic;

  // Fixed hardware. Port 0: the block does not exist.
  uint8_t sci_irq = 9;
  uint16_t pm1_event = 0;    // 4 bytes: status, enable
  uint16_t pm1_control = 0;  // 2 bytes
  uint16_t pm_timer = 0;     // 4 bytes
  bool pm_timer_32bit = false;
  uint16_t gpe0 = 0;
  uint8_t gpe0_length = 0;
  uint16_t reset_port = 0xcf9;
  uint8_t reset_value = 6;
  uint8_t s5_type = 5;               // SLP_TYP that powers off
  bool keyboard_controller = false;  // an 8042 that answers; with a keyboard and a mouse port
  bool vga = false;
  uint8_t rtc_century = 0x32;  // CMOS index, 0: none
  bool rtc = true;             // at port 0x70, IRQ 8

  // PCI host bridge.
  struct Window {
    uint64_t base = 0;
    uint64_t size = 0;  // 0: there is none
  };
  struct PciRoute {
    uint8_t device = 0;
    uint8_t pin = 0;  // 0: INTA
    uint32_t gsi = 0;
  };
  struct Pci {
    uint64_t ecam_base = 0;
    uint16_t buses = 1;      // 0 … buses - 1; ECAM takes 1 MiB for each
    std::vector<Window> io;  // without 0xcf8 … 0xcff
    std::vector<Window> memory32;
    std::vector<Window> memory64;
    std::vector<PciRoute> routes;  // at most 255; level-triggered, active low as PCI says
  };
  std::optional<Pci> pci;

  // Slots of the host bridge whose devices come and go.
  struct HotPlug {
    uint16_t port = 0;   // of its registers, 16 bytes
    uint8_t gpe = 0;     // the event that they raise
    uint32_t slots = 0;  // bit n: slot n
  };
  std::optional<HotPlug> hotplug;  // with `pci` only

  struct Serial {
    uint16_t port = 0x3f8;
    uint8_t irq = 4;
  };
  std::vector<Serial> serial;  // at most 4
  std::optional<uint16_t> pvpanic_port;
  struct Hpet {
    uint32_t address = 0xfed0'0000;
    uint64_t capabilities = 0;  // its first register
  };
  std::optional<Hpet> hpet;
};

namespace acpi {

inline constexpr Gpa rsdp_address = 0xe'0000;
inline constexpr uint64_t facs_size = 64;

struct Tables {
  std::vector<uint8_t> rsdp;    // for rsdp_address
  std::vector<uint8_t> facs;    // for the address given; ACPI NVS
  std::vector<uint8_t> tables;  // for the address given; ACPI reclaimable

  // Where in `tables` things stand, for firmware that moves them.
  struct Span {
    uint32_t offset = 0;
    uint32_t size = 0;
  };
  std::vector<Span> each;      // one table, whose checksum is its byte 9
  std::vector<Span> pointers;  // an address of another table or the FACS
};
inline constexpr uint32_t checksum_offset = 9;  // in a table's header

// Addresses must be multiples of 64. The sizes do not depend on the addresses.
[[nodiscard]] Tables build(const AcpiConfig& config, Gpa tables_at, Gpa facs_at);

// Definition block of the DSDT, without the table header.
[[nodiscard]] aml::Aml dsdt_terms(const AcpiConfig& config);
// Its parts for hot-plug (hotplug.cpp): what stands in the host bridge, and beside \_SB.
[[nodiscard]] aml::Aml hotplug_slots(const AcpiConfig::HotPlug& hotplug);
[[nodiscard]] aml::Aml hotplug_event(const AcpiConfig::HotPlug& hotplug);

}  // namespace acpi
}  // namespace caisson::boot
