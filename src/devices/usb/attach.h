// What src/machine calls to put a USB host controller into a PCI slot.
//   Threads  with the device lock held, or before anything runs
#pragma once

#include <memory>

#include "devices/pci/host_bridge.h"
#include "devices/usb/stick.h"
#include "devices/usb/tablet.h"
#include "devices/usb/xhci.h"

namespace caisson::usb {

// Into the first free slot, which is told; the bridge owns it.
struct AddedXhci {
  Xhci& controller;
  unsigned slot;
};
[[nodiscard]] inline AddedXhci add_xhci(pci::HostBridge& bridge, GuestMemory& memory, MsiSink& msi, Clock& clock) {
  auto controller = std::make_unique<Xhci>(memory, msi, clock);
  Xhci& reference = *controller;
  return {reference, bridge.plug(std::move(controller))};
}

}  // namespace caisson::usb
