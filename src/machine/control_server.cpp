#include "machine/control_server.h"

#include <cerrno>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace caisson::machine {
namespace {

constexpr int backlog = 64;

bool may_ask(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0;
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::create(EventLoop& loop, Fd listener, Handler handler) {
  // Whoever listens is whom clients see as their peer.
  if (::listen(listener.get(), backlog) != 0) return fail_errno(errno, "cannot listen on the control socket");
  std::unique_ptr<ControlServer> server{new ControlServer(loop, std::move(listener), std::move(handler))};
  loop.watch(server->listener_.get(), EPOLLIN, [my = server.get()](uint32_t) { my->accept(); });
  return server;
}

ControlServer::~ControlServer() {
  loop_.unwatch(listener_.get());
  for (const Client& client : clients_) loop_.unwatch(client.channel.fd());
}

void ControlServer::accept() {
  Fd socket{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
  if (!socket.valid() || !may_ask(socket.get())) return;
  const std::lock_guard hold(lock_);
  if (clients_.size() >= most_clients) return;
  Client* const client = &clients_.emplace_back(Client{control::Channel{std::move(socket)}});
  loop_.watch(client->channel.fd(), EPOLLIN, [this, client](uint32_t) { serve(client); });
}

void ControlServer::drop(Client* client) {
  loop_.unwatch(client->channel.fd());
  const std::lock_guard hold(lock_);
  clients_.remove_if([&](const Client& one) { return &one == client; });
}

void ControlServer::serve(Client* client) {
  auto packet = client->channel.receive();
  if (!packet || !*packet) {
    drop(client);
    return;
  }
  const auto request = control::parse_request((*packet)->text, (*packet)->fds.size());
  Answer answer{control::Done{}};
  if (!request) {
    answer.event = control::Refused{request.error().message};
  } else if (std::holds_alternative<control::Start>(*request)) {
    answer.event = control::Refused{"the machine runs already"};
  } else if (!std::holds_alternative<control::Watch>(*request)) {
    answer = handler_(*request);
  }
  const int fd = answer.fd.get();
  bool sent = false;
  {
    const std::lock_guard hold(lock_);
    sent = client->channel.try_send(control::serialise(answer.event), {&fd, answer.fd.valid() ? size_t{1} : 0})
               .has_value();
    if (request && std::holds_alternative<control::Watch>(*request)) client->watches = true;
  }
  if (!sent) drop(client);
}

void ControlServer::tell(std::string_view event) {
  const std::lock_guard hold(lock_);
  for (Client& client : clients_) {
    // One that does not read is cut off: its end wakes the event loop, which drops it.
    if (client.watches && !client.channel.try_send(event)) ::shutdown(client.channel.fd(), SHUT_RDWR);
  }
}

}  // namespace caisson::machine
