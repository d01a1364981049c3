#include "machine/control_socket.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <utility>

namespace caisson::machine {

ControlSocket::ControlSocket(EventLoop& loop, Fd listener, Handler handler)
    : loop_(loop), listener_(std::move(listener)), handler_(std::move(handler)) {
  loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept(); });
}

ControlSocket::~ControlSocket() {
  loop_.unwatch(listener_.get());
  for (const auto& [id, client] : clients_) loop_.unwatch(client->fd());
}

void ControlSocket::accept() {
  // Not blocking: a client that does not read its answers is dropped, and delays nobody.
  Fd client{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
  if (!client.valid() || clients_.size() >= most_clients) return;
  const uint64_t id = ++last_id_;
  const int fd = client.get();
  clients_[id] = std::make_unique<control::Channel>(std::move(client));
  loop_.watch(fd, EPOLLIN, [this, id](uint32_t) { receive(id); });
}

void ControlSocket::drop(uint64_t id) {
  const auto client = clients_.find(id);
  if (client == clients_.end()) return;
  loop_.unwatch(client->second->fd());
  clients_.erase(client);
}

void ControlSocket::receive(uint64_t id) {
  const auto client = clients_.find(id);
  if (client == clients_.end()) return;
  auto packet = client->second->receive();
  if (!packet || !*packet) {
    drop(id);
    return;
  }
  const Reply reply = [this, id](const control::Event& event) {
    const auto to = clients_.find(id);
    if (to != clients_.end() && !to->second->send(control::serialise(event))) drop(id);
  };
  auto request = control::parse_request((*packet)->text, (*packet)->fds.size());
  if (!request || std::holds_alternative<control::Start>(*request)) {
    reply(control::Done{request ? "this machine was started already" : request.error().message});
    return;
  }
  handler_(*request, std::move((*packet)->fds), reply);
}

}  // namespace caisson::machine
