// What src/machine calls to put virtio devices into PCI slots.
//   Threads  with the device lock held, or before anything runs. Backends outlive the host bridge.
#pragma once

#include <optional>

#include "backend/block_backend.h"
#include "backend/char_backend.h"
#include "backend/net_backend.h"
#include "bus/interrupt.h"
#include "devices/pci/host_bridge.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/console.h"
#include "devices/virtio/gpu.h"
#include "devices/virtio/input.h"
#include "devices/virtio/net.h"
#include "devices/virtio/rng.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/vsock.h"

namespace caisson::virtio {

struct Services {
  GuestMemory& memory;
  MsiSink& msi;
  unsigned cpus;  // of the machine, 1 or more: a disk has a queue for each, up to Blk::most_queues
  Post post;      // [&](auto task) { event_loop.post(std::move(task)); }
};

using WantedSlot = std::optional<unsigned>;  // none: the first free one; there must be one

// One queue for each CPU where `options` names no number. The bridge owns the device; the references are for what only
// the host does (set_link(), set_size()).
Blk& add_blk(pci::HostBridge& bridge, const Services& services, BlockBackend& backend, const Blk::Options& options = {},
             WantedSlot slot = {});
Net& add_net(pci::HostBridge& bridge, const Services& services, NetBackend& backend, const Net::Options& options = {},
             WantedSlot slot = {});
Console& add_console(pci::HostBridge& bridge, const Services& services, CharBackend& backend, WantedSlot slot = {});
Input& add_input(pci::HostBridge& bridge, const Services& services, Input::Kind kind, WantedSlot slot = {});
Gpu& add_gpu(pci::HostBridge& bridge, const Services& services, WantedSlot slot = {});
Rng& add_rng(pci::HostBridge& bridge, const Services& services, WantedSlot slot = {});
Vsock& add_vsock(pci::HostBridge& bridge, const Services& services, WantedSlot slot = {});
Balloon& add_balloon(pci::HostBridge& bridge, const Services& services, WantedSlot slot = {});

}  // namespace caisson::virtio
