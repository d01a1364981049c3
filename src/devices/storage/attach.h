// What src/machine calls to put storage controllers into PCI slots.
//   Threads  with the device lock held, or before anything runs
#pragma once

#include <memory>
#include <optional>

#include "devices/pci/host_bridge.h"
#include "devices/storage/ahci.h"
#include "devices/storage/nvme.h"

namespace caisson::storage {

// Into the first free slot, which is told; the bridge owns it.
struct AddedAhci {
  Ahci& controller;
  unsigned slot;
};
[[nodiscard]] inline AddedAhci add_ahci(pci::HostBridge& bridge, GuestMemory& memory) {
  auto controller = std::make_unique<Ahci>(memory);
  Ahci& reference = *controller;
  return {reference, bridge.plug(std::move(controller))};
}

// A controller for each disk; see Nvme's constructor. Without a slot into the first free one, which is told.
[[nodiscard]] inline unsigned add_nvme(pci::HostBridge& bridge, GuestMemory& memory, MsiSink& msi, BlockBackend& image,
                                       std::string_view serial, std::optional<unsigned> slot = {}) {
  return bridge.plug(std::make_unique<Nvme>(memory, msi, image, serial), slot);
}

}  // namespace caisson::storage
