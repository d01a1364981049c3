// Port forwards that are added to a machine and taken from it: of a running one at once, and in its configuration.
//   Threads  any
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "control/vm_config.h"
#include "life/really.h"
#include "store/vm_folder.h"

namespace caisson::life {

[[nodiscard]] Result<> add_forward(const store::VmFolder& folder, const control::PortForward& forward,
                                   Really really = Really::Yes);

// One by what it listens on.
struct HostPort {
  control::Protocol protocol = control::Protocol::Tcp;
  std::optional<std::string> address;  // none: any
  uint32_t port = 0;
};
[[nodiscard]] Result<> remove_forward(const store::VmFolder& folder, const HostPort& which,
                                      Really really = Really::Yes);

}  // namespace caisson::life
