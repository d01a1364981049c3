#include "cli/vnc_command.h"

#include <array>
#include <cerrno>

#include <fmt/core.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/write_all.h"
#include "cli/exit_status.h"
#include "life/vnc_socket.h"
#include "store/store.h"

namespace caisson::cli {
namespace {

struct Screen {
  store::VmFolder folder;
  store::VmSpec spec;
};

Result<Screen> find_screen(const std::string& machine) {
  auto store = store::Store::open();
  if (!store) return std::unexpected(store.error());
  auto folder = store->find(machine);
  if (!folder) return std::unexpected(folder.error());
  auto spec = folder->spec();
  if (!spec) return std::unexpected(spec.error());
  if (spec->vnc.empty()) {
    return fail("machine {} shows its screen to no viewer; write: caisson set {} --vnc unix, and start it again",
                machine, machine);
  }
  if (!folder->alive()) return fail("machine {} is not running; start it with: caisson start {}", machine, machine);
  return Screen{std::move(*folder), std::move(*spec)};
}

// Until the machine's side ends. What comes from the viewer ends first when it has gone.
Result<> relay(int socket) {
  std::array<pollfd, 2> ends{{{STDIN_FILENO, POLLIN, 0}, {socket, POLLIN, 0}}};
  std::array<char, 65536> bytes;
  for (;;) {
    if (::poll(ends.data(), ends.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return fail_errno(errno, "wait for the viewer");
    }
    for (size_t i = 0; i < ends.size(); ++i) {
      if ((ends[i].revents & (POLLIN | POLLHUP | POLLERR)) == 0) continue;
      const ssize_t got = ::read(ends[i].fd, bytes.data(), bytes.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0 && i == 1) return {};
      if (got <= 0) {
        ::shutdown(socket, SHUT_WR);
        ends[0].fd = -1;
        continue;
      }
      const int to = i == 0 ? socket : STDOUT_FILENO;
      if (const int error = write_all(to, {bytes.data(), static_cast<size_t>(got)})) {
        // The other side has gone; that is how such a connection ends.
        if (error == EPIPE || error == ECONNRESET) return {};
        return fail_errno(error, "pass on the viewer's bytes");
      }
    }
  }
}

int report(const Error& error) {
  log::error("{}", error.message);
  return exit_failure;
}

}  // namespace

int vnc(const std::string& machine, bool stdio) {
  const auto screen = find_screen(machine);
  if (!screen) return report(screen.error());
  if (stdio) {
    const auto socket = life::connect_vnc(screen->folder, screen->spec);
    if (!socket) return report(socket.error());
    const auto done = relay(socket->get());
    return done ? exit_ok : report(done.error());
  }
  if (screen->spec.vnc == "unix") {
    fmt::print("{}\n", screen->folder.file(store::VmFolder::vnc_socket));
  } else {
    fmt::print("{}\n", screen->spec.vnc);
  }
  return exit_ok;
}

}  // namespace caisson::cli
