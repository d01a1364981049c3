// The ports of a machine's USB controller, which comes with the first device.
//   Threads  before anything runs, or with the device lock held
#pragma once

#include <memory>
#include <optional>

#include "bus/clock.h"
#include "devices/usb/attach.h"
#include "devices/virtio/attach.h"

namespace caisson::machine {

class UsbPorts {
 public:
  // All outlive this. The bridge, which owns the controller and the devices, may go before what they use.
  UsbPorts(pci::HostBridge& bridge, const virtio::Services& services, Clock& clock)
      : bridge_(bridge), services_(services), clock_(clock) {}

  struct Place {
    unsigned slot;  // of the controller
    unsigned port;  // from 1 on
  };
  // None: there is no free port for its speed, of which there are four.
  [[nodiscard]] std::optional<Place> connect(std::unique_ptr<usb::UsbDevice> device) {
    if (!xhci_) xhci_.emplace(usb::add_xhci(bridge_, services_.memory, services_.msi, clock_));
    const auto port = xhci_->controller.connect(std::move(device));
    if (!port) return {};
    return Place{xhci_->slot, *port};
  }

 private:
  pci::HostBridge& bridge_;
  const virtio::Services& services_;
  Clock& clock_;
  std::optional<usb::AddedXhci> xhci_;
};

}  // namespace caisson::machine
