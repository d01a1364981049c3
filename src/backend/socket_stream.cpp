#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "backend/host_stream.h"

namespace caisson {
namespace {

class SocketStream final : public HostStream {
 public:
  SocketStream(EventLoop& loop, Fd socket) : loop_(loop), socket_(std::move(socket)) {}
  ~SocketStream() override {
    if (watched_ != 0) loop_.unwatch(socket_.get());
  }

  void set_handlers(std::function<void()> readable, std::function<void()> writable) override {
    readable_ = std::move(readable);
    writable_ = std::move(writable);
  }
  Outcome read(std::span<uint8_t> into) override {
    return outcome([&] { return ::recv(socket_.get(), into.data(), into.size(), 0); });
  }
  Outcome write(std::span<const uint8_t> bytes) override {
    return outcome([&] { return ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL); });
  }
  void wait_readable() override { watch(watched_ | EPOLLIN); }
  void wait_writable() override { watch(watched_ | EPOLLOUT); }
  void end_output() override { ::shutdown(socket_.get(), SHUT_WR); }

 private:
  template <class Call>
  static Outcome outcome(Call call) {
    for (;;) {
      const ssize_t size = call();
      if (size > 0) return {State::Moved, static_cast<size_t>(size)};
      if (size < 0 && errno == EINTR) continue;
      if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return {State::Later, 0};
      return {State::Ended, 0};
    }
  }

  void watch(uint32_t events) {
    if (events == watched_) return;
    watched_ = events;
    if (events == 0) {
      loop_.unwatch(socket_.get());
    } else {
      loop_.watch(socket_.get(), events, [this](uint32_t ready) { happened(ready); });
    }
  }

  void happened(uint32_t ready) {
    // EPOLLHUP and EPOLLERR come unasked: both directions have something to say then.
    if ((ready & (EPOLLHUP | EPOLLERR)) != 0) ready |= EPOLLIN | EPOLLOUT;
    const uint32_t due = ready & watched_;
    watch(watched_ & ~due);
    // A handler may destroy this object.
    const auto readable = (due & EPOLLIN) != 0 ? readable_ : nullptr;
    if ((due & EPOLLOUT) != 0 && writable_) {
      const std::weak_ptr<int> alive = alive_;
      const auto writable = writable_;
      writable();
      if (alive.expired()) return;
    }
    if (readable) readable();
  }

  EventLoop& loop_;
  Fd socket_;
  uint32_t watched_ = 0;
  std::function<void()> readable_, writable_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace

Result<std::unique_ptr<HostStream>> socket_stream(EventLoop& loop, Fd socket) {
  const int flags = ::fcntl(socket.get(), F_GETFL);
  if (flags < 0 || ::fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail_errno(errno, "cannot set up a stream to the guest");
  }
  return std::make_unique<SocketStream>(loop, std::move(socket));
}

}  // namespace caisson
