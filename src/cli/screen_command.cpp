#include "cli/screen_command.h"

#include <cerrno>
#include <cstring>
#include <vector>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/exit_status.h"
#include "cli/new_file.h"
#include "control/channel.h"
#include "control/messages.h"

namespace caisson::cli {
namespace {

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail("{}: a socket's path has 1 to {} bytes; use a shorter one", path, sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<Fd> connect_to(const std::string& path) {
  auto address = address_of(path);
  if (!address) return std::unexpected(address.error());
  Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  if (!socket.valid()) return fail_errno(errno, "make a socket");
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    return fail_errno(errno, path + ": no machine listens there; start one with --control " + path);
  }
  return socket;
}

Result<> ask(const std::string& path, const control::Request& request, std::span<const int> fds) {
  auto socket = connect_to(path);
  if (!socket) return std::unexpected(socket.error());
  control::Channel channel{std::move(*socket)};
  if (auto sent = channel.send(control::serialise(request), fds); !sent) return sent;
  for (;;) {
    auto packet = channel.receive();
    if (!packet) return std::unexpected(packet.error());
    if (!*packet) return fail("{}: the machine ended before it answered", path);
    auto event = control::parse_event((*packet)->text);
    if (!event) return std::unexpected(event.error());
    if (const auto* refused = std::get_if<control::Refused>(&*event)) return std::unexpected(Error{refused->text});
    if (std::holds_alternative<control::Done>(*event)) return {};
  }
}

int report(const Result<>& result) {
  if (result) return exit_ok;
  log::error("{}", result.error().message);
  return exit_failure;
}

}  // namespace

Result<Fd> listen_for_requests(const std::string& path) {
  auto address = address_of(path);
  if (!address) return std::unexpected(address.error());
  Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!socket.valid()) return fail_errno(errno, "make a socket");
  const auto* generic = reinterpret_cast<const sockaddr*>(&*address);
  const mode_t mask = ::umask(0177);  // for this user alone
  int bound = ::bind(socket.get(), generic, sizeof *address);
  if (bound != 0 && errno == EADDRINUSE && !connect_to(path)) {
    struct stat info {};
    // Left by a machine that has ended. Nothing but a socket is removed.
    if (::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) ::unlink(path.c_str());
    bound = ::bind(socket.get(), generic, sizeof *address);
  }
  const int error = errno;
  ::umask(mask);
  if (bound != 0) return fail_errno(error, "--control " + path);
  if (::listen(socket.get(), 8) != 0) return fail_errno(errno, "--control " + path);
  return socket;
}

int screenshot(const std::string& socket, const std::string& file, bool text) {
  auto out = NewFile::make(file, true);
  if (!out) return report(std::unexpected(out.error()));
  const std::vector<int> fds{out->fd().get()};
  const auto done = ask(socket, control::Screenshot{text}, fds);
  return report(done ? out->finish() : done);
}

int type(const std::string& socket, const std::string& text) {
  if (text.empty() || text.size() > control::Type::max_text) {
    log::error("write 1 to {} characters to be typed", control::Type::max_text);
    return exit_usage;
  }
  return report(ask(socket, control::Type{text}, {}));
}

}  // namespace caisson::cli
