#include "life/vm_client.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/event_loop.h"

namespace caisson::life {
namespace {

bool is_answer(const control::Event& event) {
  return std::holds_alternative<control::Done>(event) || std::holds_alternative<control::Status>(event) ||
         std::holds_alternative<control::Attached>(event) || std::holds_alternative<control::Refused>(event);
}

// False when nothing came until `deadline_ns`.
bool wait_readable(int fd, uint64_t deadline_ns) {
  for (;;) {
    const uint64_t now = EventLoop::now_ns();
    const uint64_t left_ms = now < deadline_ns ? (deadline_ns - now) / 1'000'000 + 1 : 0;
    pollfd ready{fd, POLLIN, 0};
    const int count = ::poll(&ready, 1, static_cast<int>(std::min<uint64_t>(left_ms, 1 << 30)));
    if (count > 0) return true;
    if (count == 0 && left_ms <= 1 << 30) return false;
    if (count < 0 && errno != EINTR) return false;
  }
}

uint64_t deadline_in(uint64_t ms) { return EventLoop::now_ns() + ms * 1'000'000; }

}  // namespace

Result<sockaddr_un> socket_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail("{}: a socket's path has 1 to {} bytes; use a shorter one", path, sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<VmClient> VmClient::connect(const store::VmFolder& folder) {
  if (!folder.alive())
    return fail("machine {} is not running; start it with: caisson start {}", folder.name(), folder.name());
  auto socket = folder.connect_control();
  if (!socket) return std::unexpected(socket.error());
  return VmClient{control::Channel{std::move(*socket)}, "machine " + folder.name()};
}

Result<VmClient> VmClient::connect_path(const std::string& path) {
  const auto address = socket_address(path);
  if (!address) return std::unexpected(address.error());
  Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  if (!socket.valid()) return fail_errno(errno, "make a socket");
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    return fail_errno(errno, path + ": there is no machine of that name, and none listens there");
  }
  return VmClient{control::Channel{std::move(socket)}, path};
}

Result<> VmClient::send(const control::Request& request, std::span<const int> fds) {
  auto sent = channel_.send(control::serialise(request), fds);
  if (!sent) return with_context(name_, sent.error());
  return {};
}

Result<VmClient::Answer> VmClient::receive(uint64_t timeout_ms) {
  const uint64_t deadline = deadline_in(timeout_ms);
  for (;;) {
    if (!wait_readable(channel_.fd(), deadline)) return fail("{} has not answered in {} s", name_, timeout_ms / 1000);
    auto packet = channel_.receive();
    if (!packet) return with_context(name_, packet.error());
    if (!*packet) {
      gone_ = true;
      return fail("{} ended before it answered", name_);
    }
    auto event = control::parse_event((*packet)->text);
    if (!event) return with_context(name_, event.error());
    if (const auto* refused = std::get_if<control::Refused>(&*event)) return fail("{}: {}", name_, refused->text);
    if (!is_answer(*event)) continue;
    return Answer{std::move(*event), (*packet)->fds.empty() ? Fd{} : std::move((*packet)->fds[0])};
  }
}

Result<VmClient::Answer> VmClient::ask(const control::Request& request, uint64_t timeout_ms, std::span<const int> fds) {
  if (auto sent = send(request, fds); !sent) return std::unexpected(sent.error());
  return receive(timeout_ms);
}

std::optional<control::Event> VmClient::next_event(uint64_t timeout_ms) {
  if (gone_ || !wait_readable(channel_.fd(), deadline_in(timeout_ms))) return std::nullopt;
  auto packet = channel_.receive();
  if (!packet || !*packet) {
    gone_ = true;
    return std::nullopt;
  }
  auto event = control::parse_event((*packet)->text);
  if (!event) return std::nullopt;
  return std::move(*event);
}

pid_t VmClient::pid() const {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(channel_.fd(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : -1;
}

Result<> VmClient::kill() {
  const pid_t process = pid();
  if (process <= 0) return fail("{}: its process is not known", name_);
  const Fd pidfd{static_cast<int>(::syscall(SYS_pidfd_open, process, 0))};
  if (!pidfd.valid()) return {};  // gone
  // The number was its own as long as the connection stands, so the descriptor is, too.
  pollfd end{channel_.fd(), 0, 0};
  if (::poll(&end, 1, 0) > 0 && (end.revents & POLLHUP) != 0) return {};
  if (::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0) != 0 && errno != ESRCH) {
    return fail_errno(errno, name_ + ": cannot kill its process");
  }
  return {};
}

}  // namespace caisson::life
