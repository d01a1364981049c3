// A network for one guest without any privilege: libslirp speaks TCP/IP with the guest and opens ordinary sockets.
//   Models   10.0.2.0/24: guest 10.0.2.15 by DHCP, gateway 10.0.2.2 (the host: its services on 127.0.0.1 answer there),
//            name server 10.0.2.3; IPv6 fec0::/64 where the host has a route to the IPv6 internet; ICMP echo where the
//            host lets its users send it (net.ipv4.ping_group_range); port forwards from the host to the guest
//   DNS      answered here through the host's resolver (dns_server.h), not by libslirp, which would only know the first
//            name server: UDP queries to the name server's address never reach it, and TCP ones are led, by changing
//            addresses in passing, to a port on the loopback interface
//   Omits    more than one guest on the network, multicast, raw IP
//   Threads  called under the device lock, works under it, see net_backend.h; libslirp is not thread-safe, and its
//   clock
//            is a global: all user networks of a process share one lock
//   Note     ignores SIGPIPE in the process
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/host_resolver.h"
#include "backend/net_backend.h"
#include "backend/port_forward.h"
#include "base/event_loop.h"
#include "base/result.h"

namespace caisson {

struct UserNetworkOptions {
  std::vector<PortForward> forwards;
  std::string hostname;                    // given to the guest by DHCP where it is not empty
  size_t mtu = 1500;                       // what the guest's interface has; up to 65520 for a virtual link
  std::optional<bool> ipv6;                // none: as the host has it
  std::shared_ptr<HostResolver> resolver;  // null: the system's
  std::optional<std::vector<std::string>> search_domains;  // none: the host's
};

class UserNetwork final : public NetBackend {
 public:
  // Binds all forwards: an error names the port and the remedy. Call under the device lock or before the loop runs.
  [[nodiscard]] static Result<std::unique_ptr<UserNetwork>> create(EventLoop& loop, UserNetworkOptions options);
  ~UserNetwork() override;  // under the device lock

  // While it runs. A forward that goes takes no new connections; those it has made stay.
  [[nodiscard]] Result<> add_forward(const PortForward& forward);
  void remove_forward(const PortForward& forward);

  void send(std::span<const uint8_t> frame) override;
  void set_receiver(Receiver receiver) override;
  void receive_ready() override;

  // Frames to the guest that were thrown away because it did not take them.
  [[nodiscard]] uint64_t dropped() const;

 private:
  struct Impl;
  explicit UserNetwork(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson
