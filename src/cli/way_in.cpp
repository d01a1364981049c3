#include "cli/way_in.h"

#include <algorithm>
#include <ctime>

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/event_loop.h"
#include "life/agent_link.h"
#include "life/child.h"
#include "life/ssh_key.h"
#include "life/vm_client.h"
#include "store/store.h"

namespace caisson::cli {
namespace {

constexpr uint64_t boot_patience_ns = 120'000'000'000;

// A server behind the port says who it is; before that the forward takes connections and drops them.
bool answers(uint32_t port) {
  const Fd socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return false;
  pollfd ready{socket.get(), POLLIN, 0};
  char greeting[4] = {};
  return ::poll(&ready, 1, 5000) > 0 && ::recv(socket.get(), greeting, 4, 0) == 4 && greeting[0] == 'S';
}

// The port of this host that leads to the machine's ssh server; 0: none.
uint32_t ssh_port(const control::Status& status) {
  const auto forward = std::ranges::find_if(status.forwards, [](const control::PortForward& one) {
    return one.guest_port == life::ssh_guest_port && one.protocol == control::Protocol::Tcp;
  });
  return forward == status.forwards.end() ? 0 : forward->host_port;
}

}  // namespace

Result<WayIn> way_in(const std::string& name, Ways ways) {
  auto store = store::Store::open();
  if (!store) return std::unexpected(store.error());
  auto folder = store->find(name);
  if (!folder) return std::unexpected(folder.error());
  auto client = life::VmClient::connect(*folder);
  if (!client) return std::unexpected(client.error());
  auto answer = client->ask(control::Query{});
  if (!answer) return std::unexpected(answer.error());
  const auto* status = std::get_if<control::Status>(&answer->event);
  if (status == nullptr) return fail("machine {} has not said what it does", name);
  if (status->state == control::RunState::Paused) {
    return fail("machine {} is paused; go on with: caisson resume {}", name, name);
  }
  const bool agent = ways == Ways::AgentOrSsh && status->vsock;
  uint32_t port = ssh_port(*status);
  if (port != 0 && !life::in_path("ssh")) {
    if (!agent) return fail("ssh is not installed on this host; apt-get install openssh-client");
    port = 0;
  }
  if (!agent && port == 0) {
    return fail("machine {} has no way in{}: it is not made from an image{}", name, ways == Ways::Ssh ? " by ssh" : "",
                ways == Ways::Ssh ? ", or has no network" : "; see run --vsock");
  }
  const uint64_t start = EventLoop::now_ns();
  bool told = false;
  for (;;) {
    if (agent) {
      if (auto connection = life::connect_agent(*client)) return WayIn{std::move(*connection), 0};
    }
    if (port != 0 && answers(port)) return WayIn{{}, port};
    const uint64_t waited = EventLoop::now_ns() - start;
    if (!folder->alive()) return fail("machine {} has ended", name);
    if (waited > boot_patience_ns) {
      return fail(
          "machine {}: waited {} s, and {} yet; the machine is still starting, or its system has none: "
          "caisson logs {} shows how far it is, then try again",
          name, waited / 1'000'000'000,
          agent && port != 0 ? "neither its agent nor its ssh server answers"
          : agent            ? "its agent does not answer"
                             : "its ssh server does not answer",
          name);
    }
    if (waited > 1'000'000'000 && !told) {
      fmt::print(stderr, "caisson: waiting for {} to answer\n", name);
      told = true;
    }
    const timespec pause{0, 100'000'000};
    ::nanosleep(&pause, nullptr);
  }
}

}  // namespace caisson::cli
