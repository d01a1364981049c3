// Virtio entropy device.
//   Spec     VIRTIO 1.2, 5.4
//   Models   the request queue, fed by getrandom(2)
//   Omits    nothing
//   Threads  under the device lock
#pragma once

#include "devices/virtio/model.h"

namespace caisson::virtio {

class Rng final : public Model {
 public:
  // No request gets more than this, whatever it asks for: a small request of the guest must not be much work here.
  static constexpr size_t most = 4096;

  [[nodiscard]] std::string_view kind() const override { return "virtio-rng"; }
  [[nodiscard]] DeviceType type() const override { return DeviceType::Entropy; }
  [[nodiscard]] uint32_t pci_class() const override { return 0x00ff00; }
  [[nodiscard]] uint64_t features() const override { return 0; }
  [[nodiscard]] unsigned queue_count() const override { return 1; }
  [[nodiscard]] uint16_t queue_size() const override { return 64; }
  [[nodiscard]] std::span<const uint8_t> config() const override { return {}; }
  void kick(unsigned queue) override;
};

}  // namespace caisson::virtio
