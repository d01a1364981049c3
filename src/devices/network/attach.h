// What src/machine calls to put network cards into PCI slots.
//   Threads  with the device lock held, or before anything runs. Backends outlive the host bridge.
#pragma once

#include <memory>
#include <optional>

#include "devices/network/e1000.h"
#include "devices/pci/host_bridge.h"

namespace caisson::network {

// Without a slot into the first free one; the bridge owns it.
inline E1000& add_e1000(pci::HostBridge& bridge, GuestMemory& memory, Clock& clock, NetBackend& backend,
                        const E1000::Mac& mac, std::optional<unsigned> slot = {}) {
  auto card = std::make_unique<E1000>(memory, clock, backend, mac);
  E1000& reference = *card;
  bridge.plug(std::move(card), slot);
  return reference;
}

}  // namespace caisson::network
