// Port forwards as users write them: [ADDRESS:]HOST:GUEST[/tcp|/udp], for instance 2222:22 or 0.0.0.0:5353:53/udp.
//   Models   IPv4 addresses as digits; without one the forward listens on 127.0.0.1, for this host only
//   Threads  none of its own
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson {

struct PortForward {
  std::array<uint8_t, 4> address{127, 0, 0, 1};  // on the host
  uint16_t host_port = 0;
  uint16_t guest_port = 0;
  bool udp = false;
  bool operator==(const PortForward&) const = default;
};

[[nodiscard]] Result<PortForward> parse_port_forward(std::string_view text);
// The form that parse_port_forward() reads, with the address.
[[nodiscard]] std::string to_string(const PortForward& forward);

// Why the host refused to listen, from an errno value.
[[nodiscard]] Error cannot_listen(const PortForward& forward, int error);

}  // namespace caisson
