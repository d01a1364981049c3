// A machine's network: the user-mode one, and the forwards it has at the moment.
//   Threads  under the device lock
#pragma once

#include <memory>
#include <vector>

#include "backend/user_network.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "control/vm_config.h"

namespace caisson::machine {

class Network {
 public:
  // Binds the forwards; an error names the port and the remedy.
  [[nodiscard]] static Result<std::unique_ptr<Network>> create(EventLoop& loop,
                                                               const std::vector<control::PortForward>& forwards);

  [[nodiscard]] Result<> add(const control::PortForward& forward);
  [[nodiscard]] Result<> remove(const control::PortForward& forward);

  [[nodiscard]] NetBackend& backend() { return *network_; }
  [[nodiscard]] const std::vector<control::PortForward>& forwards() const { return forwards_; }

 private:
  Network() = default;
  std::unique_ptr<UserNetwork> network_;
  std::vector<control::PortForward> forwards_;
};

}  // namespace caisson::machine
