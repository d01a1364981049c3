#include "devices/virtio/attach.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/check.h"

namespace caisson::virtio {
namespace {

template <class ModelType>
ModelType& add(pci::HostBridge& bridge, const Services& services, std::unique_ptr<ModelType> model, WantedSlot slot) {
  if (!slot) slot = bridge.free_slot();
  CAISSON_CHECK(slot.has_value());
  ModelType& reference = *model;
  // Named by its slot: stable from run to run, unique in the machine.
  bridge.plug(std::make_unique<VirtioPci>(fmt::format("{}.{}", model->kind(), *slot), std::move(model), services.memory,
                                          services.msi, services.post),
              slot);
  return reference;
}

}  // namespace

Blk& add_blk(pci::HostBridge& bridge, const Services& services, BlockBackend& backend, const Blk::Options& options,
             WantedSlot slot) {
  Blk::Options chosen = options;
  if (chosen.queues == 0) chosen.queues = std::clamp(services.cpus, 1u, Blk::most_queues);
  return add(bridge, services, std::make_unique<Blk>(backend, chosen), slot);
}

Net& add_net(pci::HostBridge& bridge, const Services& services, NetBackend& backend, const Net::Options& options,
             WantedSlot slot) {
  return add(bridge, services, std::make_unique<Net>(backend, options), slot);
}

Console& add_console(pci::HostBridge& bridge, const Services& services, CharBackend& backend, WantedSlot slot) {
  return add(bridge, services, std::make_unique<Console>(backend), slot);
}

Input& add_input(pci::HostBridge& bridge, const Services& services, Input::Kind kind, WantedSlot slot) {
  return add(bridge, services, std::make_unique<Input>(kind), slot);
}

Gpu& add_gpu(pci::HostBridge& bridge, const Services& services, WantedSlot slot) {
  return add(bridge, services, std::make_unique<Gpu>(), slot);
}

Rng& add_rng(pci::HostBridge& bridge, const Services& services, WantedSlot slot) {
  return add(bridge, services, std::make_unique<Rng>(), slot);
}

Vsock& add_vsock(pci::HostBridge& bridge, const Services& services, WantedSlot slot) {
  return add(bridge, services, std::make_unique<Vsock>(), slot);
}

Balloon& add_balloon(pci::HostBridge& bridge, const Services& services, WantedSlot slot) {
  return add(bridge, services, std::make_unique<Balloon>(), slot);
}

}  // namespace caisson::virtio
