#include "machine/control_server.h"

#include <cerrno>
#include <utility>

#include <fcntl.h>
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

ControlServer::ControlServer(EventLoop& loop, Handler handler)
    : loop_(loop), handler_(std::move(handler)), self_(std::make_shared<ControlServer*>(this)) {}

ControlServer::~ControlServer() {
  *self_ = nullptr;
  for (const Fd& listener : listeners_) loop_.unwatch(listener.get());
  for (const Client& client : clients_) loop_.unwatch(client.channel.fd());
}

Result<> ControlServer::listen(Fd listener) {
  // By whom listens, not by whom bound it, clients know their peer.
  if (::listen(listener.get(), backlog) != 0) return fail_errno(errno, "cannot listen on the control socket");
  const int fd = listener.get();
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  listeners_.push_back(std::move(listener));
  loop_.watch(fd, EPOLLIN, [this, fd](uint32_t) { accept(fd); });
  return {};
}

void ControlServer::accept(int listener) {
  Fd socket{::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)};
  if (!socket.valid() || !may_ask(socket.get())) return;
  const std::lock_guard hold(lock_);
  if (clients_.size() >= most_clients) return;
  const uint64_t id = ++last_id_;
  const int fd = socket.get();
  clients_.push_back(Client{id, control::Channel{std::move(socket)}});
  loop_.watch(fd, EPOLLIN, [this, id](uint32_t) { serve(id); });
}

ControlServer::Client* ControlServer::find(uint64_t id) {
  for (Client& client : clients_) {
    if (client.id == id) return &client;
  }
  return nullptr;
}

void ControlServer::drop(uint64_t id) {
  const Client* const client = find(id);
  if (client == nullptr) return;
  loop_.unwatch(client->channel.fd());
  const std::lock_guard hold(lock_);
  clients_.remove_if([&](const Client& one) { return one.id == id; });
}

void ControlServer::serve(uint64_t id) {
  Client* const client = find(id);
  if (client == nullptr) return;
  auto packet = client->channel.receive();
  if (!packet || !*packet || std::exchange(client->waits, true)) {
    drop(id);
    return;
  }
  const auto request = control::parse_request((*packet)->text, (*packet)->fds.size());
  if (!request) {
    answer(id, control::Refused{request.error().message}, {});
  } else if (std::holds_alternative<control::Start>(*request)) {
    answer(id, control::Refused{"the machine runs already"}, {});
  } else if (std::holds_alternative<control::Watch>(*request)) {
    answer(id, control::Done{}, {}, true);
  } else {
    handler_(*request, (*packet)->fds, [self = self_, id](const control::Event& event, const Fd& fd) {
      if (*self != nullptr) (*self)->answer(id, event, fd);
    });
  }
}

void ControlServer::answer(uint64_t id, const control::Event& event, const Fd& fd, bool watches) {
  Client* const client = find(id);
  if (client == nullptr) return;
  client->waits = false;
  const int number = fd.get();
  bool sent = false;
  {
    const std::lock_guard hold(lock_);
    // Whoever has the answer misses nothing from then on.
    client->watches |= watches;
    sent = client->channel.try_send(control::serialise(event), {&number, fd.valid() ? size_t{1} : 0}).has_value();
  }
  if (!sent) drop(id);
}

void ControlServer::tell(std::string_view event) {
  const std::lock_guard hold(lock_);
  for (Client& client : clients_) {
    // One that does not read is cut off: its end wakes the event loop, which drops it.
    if (client.watches && !client.channel.try_send(event)) ::shutdown(client.channel.fd(), SHUT_RDWR);
  }
}

}  // namespace caisson::machine
