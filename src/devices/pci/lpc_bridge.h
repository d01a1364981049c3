// ISA bridge of the Q35 chipset: the registers by which firmware finds and places power management and interrupt
// routes.
//   Spec     Intel I/O Controller Hub 9 data sheet (316972), 13.1: PMBASE, ACPI_CNTL, PIRQ routes, GEN_PMCON, RCBA
//   Models   the registers as memory. The devices behind it stand at fixed places (chipset/layout.h), which are those
//            that SeaBIOS and OVMF choose; _PRT and the IOAPIC route interrupts
//   Omits    moving the power management block, routes to the 8259s, SMI
//   Threads  under the device lock
#pragma once

#include "devices/pci/pci_device.h"

namespace caisson::pci {

class LpcBridge final : public PciDevice {
 public:
  static constexpr unsigned slot = 31;
  using State = ConfigSpace::State;

  LpcBridge();
  [[nodiscard]] std::string_view name() const override { return "lpc-bridge"; }
  uint64_t read(unsigned, uint64_t, unsigned) override { return ~uint64_t{0}; }  // it has no BARs
  void write(unsigned, uint64_t, unsigned, uint64_t) override {}
  void reset() override { reset_config(); }
  void save(fields::Buffer& out) const override { fields::save(config_.state(), out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;
};

}  // namespace caisson::pci
