#include "machine/network.h"

#include <algorithm>
#include <utility>

#include <arpa/inet.h>

#include "devices/network/attach.h"

namespace caisson::machine {
namespace {

Result<PortForward> to_backend(const control::PortForward& forward) {
  PortForward to;
  to.udp = forward.protocol == control::Protocol::Udp;
  to.host_port = static_cast<uint16_t>(forward.host_port);
  to.guest_port = static_cast<uint16_t>(forward.guest_port);
  if (::inet_pton(AF_INET, forward.host_address.c_str(), to.address.data()) != 1) {
    return fail("port forward: {} is not an IPv4 address; write it as in 127.0.0.1:8080:80", forward.host_address);
  }
  return to;
}

}  // namespace

Result<std::unique_ptr<Network>> Network::create(EventLoop& loop, const std::vector<control::PortForward>& forwards) {
  UserNetworkOptions options;
  for (const control::PortForward& forward : forwards) {
    auto to = to_backend(forward);
    if (!to) return std::unexpected(to.error());
    options.forwards.push_back(*to);
  }
  auto network = UserNetwork::create(loop, std::move(options));
  if (!network) return std::unexpected(network.error());
  std::unique_ptr<Network> made{new Network};
  made->network_ = std::move(*network);
  made->limited_ = std::make_unique<LimitedNet>(loop, *made->network_);
  made->forwards_ = forwards;
  return made;
}

void Network::plug(control::NetCard card, pci::HostBridge& bridge, const virtio::Services& services, Clock& clock,
                   unsigned slot) {
  slot_ = slot;
  if (card == control::NetCard::E1000) {
    network::add_e1000(bridge, services.memory, clock, *limited_, virtio::Net::Options{}.mac, slot);
  } else {
    virtio::add_net(bridge, services, *limited_, {}, slot);
  }
}

Result<> Network::add(const control::PortForward& forward) {
  if (forwards_.size() >= control::VmConfig::max_forwards) {
    return fail("the machine has {} port forwards, which is the most it can have", forwards_.size());
  }
  auto to = to_backend(forward);
  if (!to) return std::unexpected(to.error());
  if (auto done = network_->add_forward(*to); !done) return done;
  forwards_.push_back(forward);
  return {};
}

Result<> Network::remove(const control::PortForward& forward) {
  const auto found = std::ranges::find(forwards_, forward);
  if (found == forwards_.end()) return fail("the machine has no such port forward");
  if (auto to = to_backend(forward)) network_->remove_forward(*to);
  forwards_.erase(found);
  return {};
}

}  // namespace caisson::machine
