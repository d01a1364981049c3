#include "backend/rfb/server.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <list>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/event_loop.h"

namespace caisson::rfb {
namespace {

constexpr int backlog = 8;
constexpr size_t piece = 16384;
// Pictures are looked at so often at most, and take at most a quarter of the time.
constexpr uint64_t pace_ns = 33'000'000, draw_share = 4;
constexpr unsigned most_failures = 5;
constexpr uint64_t silence_ns = 10'000'000'000;

bool is_local(int socket) {
  int domain = 0;
  socklen_t size = sizeof domain;
  return ::getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

bool may_look(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0;
}

}  // namespace

struct Server::Impl {
  struct Viewer {
    Fd socket;
    std::unique_ptr<Session> session;
    bool ends = false;  // once its output is written
    uint32_t watched = 0;
  };

  Fd listener;
  bool local = false;
  SessionOptions options;
  Machine& machine;
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<EventLoop::Timer> timer;
  std::list<Viewer> viewers;
  std::atomic<unsigned> count = 0;
  View view;
  std::optional<uint64_t> whole_drawn, bare_drawn;  // machine.changes() of the view's pictures; none: nobody looks
  uint64_t next_draw_ns = 0;
  unsigned failures = 0;
  uint64_t silent_until_ns = 0;
  std::thread thread;

  Impl(Fd fd, SessionOptions given, Machine& of) : listener(std::move(fd)), options(std::move(given)), machine(of) {}

  void accept();
  void serve(int fd, uint32_t events);
  void drop(std::list<Viewer>::iterator viewer);
  [[nodiscard]] bool flush(Viewer& viewer);
  void watch(Viewer& viewer);
  void look(bool whole_wanted = false);
  void show();
  void failed();
};

void Server::Impl::accept() {
  Fd socket{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
  if (!socket.valid() || (local && !may_look(socket.get()))) return;
  if (!local && EventLoop::now_ns() < silent_until_ns) return;
  if (viewers.size() >= most_viewers) {
    // Who has not come in yet makes room.
    const auto waiting = std::ranges::find_if(viewers, [](const Viewer& one) { return !one.session->running(); });
    if (waiting == viewers.end()) return;
    drop(waiting);
  }
  Challenge challenge{};
  if (::getrandom(challenge.data(), challenge.size(), 0) != static_cast<ssize_t>(challenge.size())) return;
  const int fd = socket.get();
  if (!local) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  look(true);  // the picture's size is told early
  viewers.push_back({std::move(socket), std::make_unique<Session>(options, challenge, machine, view)});
  count = static_cast<unsigned>(viewers.size());
  if (!flush(viewers.back())) drop(std::prev(viewers.end()));
}

void Server::Impl::drop(std::list<Viewer>::iterator viewer) {
  loop->unwatch(viewer->socket.get());
  viewers.erase(viewer);
  count = static_cast<unsigned>(viewers.size());
}

void Server::Impl::watch(Viewer& viewer) {
  const uint32_t wanted = (viewer.ends ? 0u : EPOLLIN) | (viewer.session->output().empty() ? 0u : EPOLLOUT);
  if (wanted == viewer.watched) return;
  viewer.watched = wanted;
  const int fd = viewer.socket.get();
  loop->watch(fd, wanted, [this, fd](uint32_t events) { serve(fd, events); });
}

// False: it has gone, or is to go.
bool Server::Impl::flush(Viewer& viewer) {
  std::vector<uint8_t>& output = viewer.session->output();
  size_t sent = 0;
  while (sent < output.size()) {
    const ssize_t done = ::send(viewer.socket.get(), output.data() + sent, output.size() - sent, MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return false;
    if (done < 0) break;
    sent += static_cast<size_t>(done);
  }
  output.erase(output.begin(), output.begin() + static_cast<ptrdiff_t>(sent));
  if (viewer.ends && output.empty()) return false;
  watch(viewer);
  return true;
}

void Server::Impl::failed() {
  if (local || ++failures < most_failures) return;
  failures = 0;
  silent_until_ns = EventLoop::now_ns() + silence_ns;
}

void Server::Impl::serve(int fd, uint32_t events) {
  const auto viewer = std::ranges::find_if(viewers, [fd](const Viewer& one) { return one.socket.get() == fd; });
  if (viewer == viewers.end()) return;
  if ((events & (EPOLLERR | EPOLLHUP)) != 0 && (events & EPOLLIN) == 0) return drop(viewer);
  if ((events & EPOLLIN) != 0 && !viewer->ends) {
    std::array<uint8_t, piece> bytes;
    const ssize_t got = ::recv(fd, bytes.data(), bytes.size(), 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return drop(viewer);
    if (got > 0 && !viewer->session->feed(std::span(bytes).first(static_cast<size_t>(got)))) {
      viewer->ends = true;
      if (viewer->session->refused()) failed();
    } else if (got > 0 && viewer->session->running()) {
      failures = 0;
    }
  }
  if (!flush(*viewer)) return drop(viewer);
  show();
}

// A new picture where there may be one, and it is time for one.
void Server::Impl::look(bool whole_wanted) {
  const uint64_t changes = machine.changes();
  const uint64_t now = EventLoop::now_ns();
  bool bare_wanted = false;
  for (const Viewer& one : viewers) (one.session->draws_pointer() ? bare_wanted : whole_wanted) = true;
  // Whether to draw it.
  const auto due = [&](bool wanted, std::optional<uint64_t>& drawn) {
    if (!wanted) drawn.reset();
    return wanted && drawn != changes && (!drawn || now >= next_draw_ns);
  };
  const bool whole_due = due(whole_wanted, whole_drawn), bare_due = due(bare_wanted, bare_drawn);
  if (!whole_due && !bare_due) return;
  if (whole_due) {
    view.whole.replace(machine.draw(true));
    whole_drawn = changes;
  }
  if (bare_due) {
    view.bare.replace(machine.draw(false));
    view.replace(machine.cursor());
    bare_drawn = changes;
  }
  const uint64_t after = EventLoop::now_ns();
  next_draw_ns = after + std::max(pace_ns, draw_share * (after - now));
}

// To all who wait. Whoever waits on has the picture looked at again soon.
void Server::Impl::show() {
  const auto waits = [](const Viewer& one) { return one.session->wants_update(); };
  if (std::ranges::none_of(viewers, waits)) return;
  look();
  for (auto viewer = viewers.begin(); viewer != viewers.end();) {
    const auto one = viewer++;
    if (!waits(*one)) continue;
    one->session->update();
    if (!one->session->output().empty() && !flush(*one)) drop(one);
  }
  if (std::ranges::any_of(viewers, waits)) timer->arm(std::max(next_draw_ns, EventLoop::now_ns() + pace_ns));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Server>> Server::create(Fd listener, SessionOptions options, Machine& machine) {
  auto impl = std::make_unique<Impl>(std::move(listener), std::move(options), machine);
  Impl& self = *impl;
  self.local = is_local(self.listener.get());
  if (!self.local && self.options.password.empty()) {
    return fail("--vnc: a TCP socket needs a password; give --vnc-password-file, or use --vnc unix");
  }
  if (::listen(self.listener.get(), backlog) != 0) return fail_errno(errno, "--vnc: cannot listen");
  ::fcntl(self.listener.get(), F_SETFL, ::fcntl(self.listener.get(), F_GETFL) | O_NONBLOCK);
  auto loop = EventLoop::create(nullptr);
  if (!loop) return std::unexpected(loop.error());
  self.loop = std::move(*loop);
  self.timer = self.loop->create_timer([&self] { self.show(); });
  self.loop->watch(self.listener.get(), EPOLLIN, [&self](uint32_t) { self.accept(); });
  self.thread = std::thread([&self] { self.loop->run(); });
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::~Server() {
  impl_->loop->stop();
  impl_->thread.join();
}

unsigned Server::viewers() const { return impl_->count; }

}  // namespace caisson::rfb
