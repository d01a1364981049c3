// What src/machine calls to put a VGA into a PCI slot.
//   Threads  before anything runs
#pragma once

#include <memory>

#include "devices/display/vga.h"
#include "devices/pci/host_bridge.h"

namespace caisson::display {

// With its legacy ports and memory; the bridge owns it.
[[nodiscard]] inline Vga& add_vga(pci::HostBridge& bridge, Bus& bus, Clock& clock, unsigned slot) {
  auto owned = std::make_unique<Vga>(clock);
  Vga& vga = *owned;
  vga.map_legacy(bus);
  bridge.plug(std::move(owned), slot);
  return vga;
}

}  // namespace caisson::display
