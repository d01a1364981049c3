#include "life/vnc_socket.h"

#include <cerrno>
#include <charconv>

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "store/files.h"

namespace caisson::life {
namespace {

constexpr size_t most_password_file = 4096;
constexpr uint32_t loopback_network = 127;

Result<sockaddr_in> tcp_address(std::string_view where) {
  const auto bad = [&] {
    return fail("--vnc {}: write unix, or an address of the loopback with a port, as 127.0.0.1:5901", where);
  };
  const size_t colon = where.rfind(':');
  if (colon == std::string_view::npos) return bad();
  uint16_t port = 0;
  const std::string_view digits = where.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (error != std::errc{} || end != digits.data() + digits.size() || port == 0 ||
      ::inet_pton(AF_INET, std::string{where.substr(0, colon)}.c_str(), &address.sin_addr) != 1) {
    return bad();
  }
  if (ntohl(address.sin_addr.s_addr) >> 24 != loopback_network) {
    return fail("--vnc {}: VNC is not encrypted and its password weak; use 127.0.0.1 and reach it by ssh -L", where);
  }
  return address;
}

// A path may be longer than a socket's address: it is taken from its folder.
sockaddr_un unix_address(const Fd& folder) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}/{}", folder.get(), store::VmFolder::vnc_socket);
  path.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
  return address;
}

Result<std::string> read_password(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return fail_errno(errno, "--vnc-password-file " + path);
  if ((info.st_mode & 077) != 0) {
    return fail("--vnc-password-file {}: others may read or write it; write: chmod 600 {}", path, path);
  }
  auto text = read_file(path, most_password_file);
  if (!text) return with_context("--vnc-password-file", text.error());
  std::string password = text->substr(0, text->find('\n'));
  if (password.empty()) return fail("--vnc-password-file {}: its first line is empty", path);
  if (password.size() > control::VmConfig::max_vnc_password) {
    return fail("--vnc-password-file {}: VNC knows only {} characters; use a shorter password", path,
                control::VmConfig::max_vnc_password);
  }
  return password;
}

}  // namespace

Result<> check_vnc(std::string_view where) {
  if (where == "unix") return {};
  auto address = tcp_address(where);
  if (!address) return std::unexpected(address.error());
  return {};
}

Result<> add_vnc(Machine& machine, const store::VmSpec& spec, const std::string& folder) {
  if (!spec.vnc_password_file.empty()) {
    auto password = read_password(spec.vnc_password_file);
    if (!password) return std::unexpected(password.error());
    machine.config.vnc_password = std::move(*password);
  }
  const bool local = spec.vnc == "unix";
  if (!local && machine.config.vnc_password.empty()) {
    return fail("--vnc {}: everybody on this host could connect; give --vnc-password-file, or write --vnc unix",
                spec.vnc);
  }
  // A screen belongs to it.
  machine.config.display = true;
  Fd socket{::socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (!socket.valid()) return fail_errno(errno, "--vnc: make a socket");
  if (local) {
    if (folder.empty()) return fail("--vnc unix: the machine has no folder; write an address, as 127.0.0.1:5901");
    const Fd place{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!place.valid()) return fail_errno(errno, folder);
    const auto address = unix_address(place);
    ::unlinkat(place.get(), store::VmFolder::vnc_socket, 0);
    // The folder is for this user alone, and the server asks who connects.
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      return fail_errno(errno, fmt::format("--vnc unix: {}/{}", folder, store::VmFolder::vnc_socket));
    }
  } else {
    const auto address = tcp_address(spec.vnc);
    if (!address) return std::unexpected(address.error());
    const int on = 1;
    ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
      return fail_errno(errno, "--vnc " + spec.vnc);
    }
  }
  machine.config.vnc_fd = machine.add(std::move(socket));
  return {};
}

Result<Fd> connect_vnc(const store::VmFolder& folder, const store::VmSpec& spec) {
  const bool local = spec.vnc == "unix";
  Fd socket{::socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (!socket.valid()) return fail_errno(errno, "make a socket");
  int connected = -1;
  if (local) {
    const Fd place{::fcntl(folder.fd(), F_DUPFD_CLOEXEC, 0)};
    const auto address = unix_address(place);
    connected = ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } else {
    const auto address = tcp_address(spec.vnc);
    if (!address) return std::unexpected(address.error());
    connected = ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address);
  }
  if (connected != 0) {
    return fail_errno(errno, fmt::format("machine {}: its screen does not answer; it was started without --vnc {}?",
                                         folder.name(), spec.vnc));
  }
  return socket;
}

}  // namespace caisson::life
