// Where PCI stands in guest-physical memory, and how interrupt pins reach the IOAPIC. Read by the host bridge and by
// whoever writes the ACPI tables (MCFG, _CRS, _PRT), so that both say the same.
#pragma once

#include <cstdint>

#include "devices/chipset/layout.h"
#include "memory/guest_memory.h"

namespace caisson::pci {

inline constexpr unsigned slot_count = 32;

struct Layout {
  // Configuration space in memory (PCI Firmware Specification 3.3, 4.1): 1 MiB a bus, only bus 0 has devices. It lies
  // above GuestMemory::low_limit, as RAM may reach up to there.
  Gpa ecam_base = 0xe000'0000;
  unsigned ecam_buses = 1;
  // Where 32-bit BARs are placed and decoded.
  Gpa mmio32_base = 0xc000'0000;
  uint64_t mmio32_size = 0x2000'0000;
  // Where I/O BARs are decoded: above all ports of the chipset. They are placed from io_first on.
  uint64_t io_base = 0x1000;
  uint64_t io_size = 0xf000;
  uint64_t io_first = 0xc000;
  // Where 64-bit BARs are placed and decoded; size 0: none, they go below 4 GiB as well.
  Gpa mmio64_base = 0;
  uint64_t mmio64_size = 0;

  [[nodiscard]] constexpr uint64_t ecam_size() const { return uint64_t{ecam_buses} << 20; }
};

inline constexpr unsigned first_intx_gsi = chipset::pci_gsi_first;
inline constexpr unsigned intx_gsi_count = chipset::pci_gsi_count;

// The IOAPIC input of a slot's pin (0 is INTA#), active low level in the tables, as _PRT lists them.
[[nodiscard]] constexpr unsigned intx_gsi(unsigned slot, unsigned pin) {
  return first_intx_gsi + (slot + pin) % intx_gsi_count;
}

}  // namespace caisson::pci
