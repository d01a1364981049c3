#include "backend/dns_tcp.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

namespace caisson {
namespace {

constexpr size_t most_unanswered = 16;
constexpr size_t most_unsent = 128 * 1024;
constexpr uint64_t idle_ns = 10'000'000'000;
constexpr size_t length_size = 2;

}  // namespace

struct DnsTcp::Connection {
  Fd fd;
  std::vector<uint8_t> in;
  std::vector<uint8_t> out;
  size_t unanswered = 0;
  bool ended = false;   // the guest sends no more
  bool closed = false;  // gone: a late reply is dropped
  uint32_t watched = 0;
  std::unique_ptr<EventLoop::Timer> idle;
};

std::unique_ptr<DnsTcp> DnsTcp::listen(EventLoop& loop, DnsServer& server, bool ipv6) {
  Fd fd{::socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd.valid()) return nullptr;
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (ipv6) {
    auto& address = reinterpret_cast<sockaddr_in6&>(storage);
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    size = sizeof address;
  } else {
    auto& address = reinterpret_cast<sockaddr_in&>(storage);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    size = sizeof address;
  }
  auto* const address = reinterpret_cast<sockaddr*>(&storage);
  if (::bind(fd.get(), address, size) != 0 || ::listen(fd.get(), most_connections) != 0 ||
      ::getsockname(fd.get(), address, &size) != 0) {
    return nullptr;
  }
  const uint16_t port = ntohs(ipv6 ? reinterpret_cast<sockaddr_in6&>(storage).sin6_port
                                   : reinterpret_cast<sockaddr_in&>(storage).sin_port);
  return std::unique_ptr<DnsTcp>(new DnsTcp(loop, server, std::move(fd), port));
}

DnsTcp::DnsTcp(EventLoop& loop, DnsServer& server, Fd listener, uint16_t port)
    : loop_(loop), server_(server), listener_(std::move(listener)), port_(port) {
  loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept(); });
}

DnsTcp::~DnsTcp() {
  loop_.unwatch(listener_.get());
  while (!connections_.empty()) close(std::shared_ptr{connections_.front()});
}

void DnsTcp::accept() {
  Fd fd{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
  if (!fd.valid() || connections_.size() >= most_connections) return;
  auto connection = std::make_shared<Connection>();
  connection->fd = std::move(fd);
  connection->idle = loop_.create_timer([this, weak = std::weak_ptr{connection}] {
    if (const auto strong = weak.lock()) close(strong);
  });
  connection->idle->arm(EventLoop::now_ns() + idle_ns);
  connections_.push_back(connection);
  watch(connection);
}

// Reads as long as there is little to answer, writes as long as there is something to write.
void DnsTcp::watch(const std::shared_ptr<Connection>& connection) {
  if (connection->closed) return;
  const bool reading =
      !connection->ended && connection->unanswered < most_unanswered && connection->out.size() < most_unsent;
  const uint32_t wanted = (reading ? uint32_t{EPOLLIN} : 0) | (connection->out.empty() ? 0 : uint32_t{EPOLLOUT});
  if (wanted == connection->watched) return;
  connection->watched = wanted;
  if (wanted == 0) return loop_.unwatch(connection->fd.get());
  loop_.watch(connection->fd.get(), wanted, [this, weak = std::weak_ptr{connection}](uint32_t events) {
    if (const auto strong = weak.lock()) ready(strong, events);
  });
}

void DnsTcp::ready(const std::shared_ptr<Connection>& connection, uint32_t events) {
  connection->idle->arm(EventLoop::now_ns() + idle_ns);
  if ((events & EPOLLOUT) != 0) write(connection);
  if (!connection->closed && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read(connection);
  watch(connection);
}

void DnsTcp::read(const std::shared_ptr<Connection>& connection) {
  std::array<uint8_t, 4096> bytes;
  const ssize_t size = ::recv(connection->fd.get(), bytes.data(), bytes.size(), 0);
  if (size < 0) {
    if (errno != EAGAIN && errno != EINTR) close(connection);
    return;
  }
  if (size == 0) {
    connection->ended = true;
    if (connection->unanswered == 0 && connection->out.empty()) close(connection);
    return;
  }
  connection->in.insert(connection->in.end(), bytes.begin(), bytes.begin() + size);
  answer_queries(connection);
}

void DnsTcp::answer_queries(const std::shared_ptr<Connection>& connection) {
  auto& in = connection->in;
  while (!connection->closed && in.size() >= length_size && connection->unanswered < most_unanswered) {
    const size_t size = size_t{in[0]} << 8 | in[1];
    if (in.size() < length_size + size) return;
    ++connection->unanswered;
    const auto reply = [this, weak = std::weak_ptr{connection}](std::vector<uint8_t> message) {
      const auto strong = weak.lock();
      if (strong == nullptr || strong->closed) return;
      --strong->unanswered;
      if (message.empty()) return close(strong);  // that was no query
      strong->out.push_back(static_cast<uint8_t>(message.size() >> 8));
      strong->out.push_back(static_cast<uint8_t>(message.size()));
      strong->out.insert(strong->out.end(), message.begin(), message.end());
      write(strong);
      answer_queries(strong);
      watch(strong);
    };
    server_.resolve(std::span{in}.subspan(length_size, size), DnsServer::Transport::Tcp, dns::max_message, reply);
    in.erase(in.begin(), in.begin() + static_cast<ptrdiff_t>(length_size + size));
  }
}

void DnsTcp::write(const std::shared_ptr<Connection>& connection) {
  auto& out = connection->out;
  while (!connection->closed && !out.empty()) {
    const ssize_t size = ::send(connection->fd.get(), out.data(), out.size(), MSG_NOSIGNAL);
    if (size > 0) {
      out.erase(out.begin(), out.begin() + size);
    } else if (errno == EAGAIN || errno == EINTR) {
      return;
    } else {
      return close(connection);
    }
  }
  if (connection->ended && connection->unanswered == 0) close(connection);
}

void DnsTcp::close(const std::shared_ptr<Connection>& connection) {
  if (connection->closed) return;
  connection->closed = true;
  loop_.unwatch(connection->fd.get());
  connection->fd.reset();
  connection->idle->cancel();
  std::erase(connections_, connection);
}

}  // namespace caisson
