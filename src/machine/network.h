// A machine's network: the user-mode one, its card, and the forwards it has at the moment.
//   Threads  under the device lock
#pragma once

#include <memory>
#include <vector>

#include "backend/limited_net.h"
#include "backend/user_network.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "bus/clock.h"
#include "control/vm_config.h"
#include "devices/virtio/attach.h"

namespace caisson::machine {

class Network {
 public:
  // Binds the forwards; an error names the port and the remedy.
  [[nodiscard]] static Result<std::unique_ptr<Network>> create(EventLoop& loop,
                                                               const std::vector<control::PortForward>& forwards);

  // Puts its card into a slot. The bridge must let go of the card before this does.
  void plug(control::NetCard card, pci::HostBridge& bridge, const virtio::Services& services, Clock& clock,
            unsigned slot);
  [[nodiscard]] unsigned slot() const { return slot_; }  // of the card

  [[nodiscard]] Result<> add(const control::PortForward& forward);
  [[nodiscard]] Result<> remove(const control::PortForward& forward);

  [[nodiscard]] LimitedNet& backend() { return *limited_; }
  [[nodiscard]] const std::vector<control::PortForward>& forwards() const { return forwards_; }

 private:
  Network() = default;
  std::unique_ptr<UserNetwork> network_;
  std::unique_ptr<LimitedNet> limited_;
  std::vector<control::PortForward> forwards_;
  unsigned slot_ = 0;
};

}  // namespace caisson::machine
