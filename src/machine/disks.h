// A machine's disks: their images, the devices that the guest sees, and the order firmware tries them in.
//   Threads  those of the start are made before anything runs; all else under the device lock
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/limited_disk.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "boot/firmware.h"
#include "control/vm_config.h"
#include "devices/virtio/attach.h"
#include "machine/usb_ports.h"

namespace caisson::machine {

class Disks {
 public:
  struct Disk {
    std::string label, serial;
    control::DiskBus bus = control::DiskBus::Virtio;
    std::unique_ptr<LimitedDisk> image;
    unsigned slot = 0;              // of its controller
    virtio::Blk* virtio = nullptr;  // the bridge's; null: another kind of disk
  };

  // Opens the images that the configuration names, taking their descriptors out of `fds`, and puts a device for each
  // into the bridge, which must go before this does. An error names the image.
  [[nodiscard]] Result<> add(const control::VmConfig& config, std::vector<Fd>& fds, EventLoop& loop,
                             pci::HostBridge& bridge, const virtio::Services& services, UsbPorts& usb);

  // One more, virtio or NVMe, into an empty slot. The first free number is in its serial.
  [[nodiscard]] Result<> add_one(control::DiskConfig config, std::vector<Fd>& fds, EventLoop& loop,
                                 pci::HostBridge& bridge, const virtio::Services& services, unsigned slot);
  // By its label; an error where none has it, or several.
  [[nodiscard]] Result<Disk*> find(std::string_view label);
  [[nodiscard]] size_t count() const { return disks_.size(); }
  // Closes the images of the slot, whose device has gone.
  void close(unsigned slot);

  [[nodiscard]] const std::vector<boot::firmware::BootDevice>& boot_order() const { return boot_order_; }

  // Waits for what is in flight, and brings it to the disk.
  void drain();
  void close() { disks_.clear(); }

 private:
  std::vector<Disk> disks_;
  std::vector<boot::firmware::BootDevice> boot_order_;
};

}  // namespace caisson::machine
