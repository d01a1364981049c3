// What src/machine calls to put storage controllers into PCI slots.
//   Threads  with the device lock held, or before anything runs
#pragma once

#include <memory>

#include "devices/pci/host_bridge.h"
#include "devices/storage/ahci.h"

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

}  // namespace caisson::storage
