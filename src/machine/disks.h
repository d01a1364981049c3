// A machine's disks: their images, the devices that the guest sees, and the order firmware tries them in.
//   Threads  made before anything runs; destroyed and drained under the device lock
#pragma once

#include <memory>
#include <vector>

#include "backend/block_backend.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "boot/firmware.h"
#include "control/vm_config.h"
#include "devices/virtio/attach.h"

namespace caisson::machine {

class Disks {
 public:
  // Opens the images that the configuration names, taking their descriptors out of `fds`, and puts a device for each
  // into the bridge, which must go before this does. An error names the image.
  [[nodiscard]] Result<> add(const control::VmConfig& config, std::vector<Fd>& fds, EventLoop& loop,
                             pci::HostBridge& bridge, const virtio::Services& services);

  [[nodiscard]] const std::vector<boot::firmware::BootDevice>& boot_order() const { return boot_order_; }

  // Waits for what is in flight, and brings it to the disk.
  void drain();
  void close() { images_.clear(); }

 private:
  std::vector<std::unique_ptr<BlockBackend>> images_;
  std::vector<boot::firmware::BootDevice> boot_order_;
};

}  // namespace caisson::machine
