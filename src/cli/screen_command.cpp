#include "cli/screen_command.h"

#include <cerrno>
#include <optional>
#include <vector>

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/exit_status.h"
#include "control/messages.h"
#include "life/new_file.h"
#include "life/vm_client.h"
#include "store/store.h"

namespace caisson::cli {
namespace {

// A machine by its name; where there is none, by the path of its socket.
Result<> ask(const std::string& machine, const control::Request& request, std::span<const int> fds) {
  const auto client = [&]() -> Result<life::VmClient> {
    auto store = store::Store::open();
    if (!store || !store->has(machine)) return life::VmClient::connect_path(machine);
    auto folder = store->find(machine);
    if (!folder) return std::unexpected(folder.error());
    return life::VmClient::connect(*folder);
  };
  auto connected = client();
  if (!connected) return std::unexpected(connected.error());
  // A long text is typed as slowly as the guest takes it.
  auto answer = connected->ask(request, 600'000, fds);
  if (!answer) return std::unexpected(answer.error());
  return {};
}

std::optional<control::PointButton> button_named(const std::string& name) {
  if (name == "left") return control::PointButton::Left;
  if (name == "right") return control::PointButton::Right;
  if (name == "middle") return control::PointButton::Middle;
  return std::nullopt;
}

int report(const Result<>& result) {
  if (result) return exit_ok;
  log::error("{}", result.error().message);
  return exit_failure;
}

}  // namespace

Result<Fd> listen_for_requests(const std::string& path) {
  auto address = life::socket_address(path);
  if (!address) return std::unexpected(address.error());
  Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!socket.valid()) return fail_errno(errno, "make a socket");
  const auto* generic = reinterpret_cast<const sockaddr*>(&*address);
  const mode_t mask = ::umask(0177);  // for this user alone
  int bound = ::bind(socket.get(), generic, sizeof *address);
  if (bound != 0 && errno == EADDRINUSE && !life::VmClient::connect_path(path)) {
    struct stat info {};
    // Left by a machine that has ended. Nothing but a socket is removed.
    if (::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) ::unlink(path.c_str());
    bound = ::bind(socket.get(), generic, sizeof *address);
  }
  const int error = errno;
  ::umask(mask);
  if (bound != 0) return fail_errno(error, "--control " + path);
  return socket;
}

int screenshot(const std::string& socket, const std::string& file, bool text) {
  auto out = life::NewFile::make(file, true);
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

int click(const PointerOptions& options) {
  using control::PointAction;
  const auto button = button_named(options.button);
  if (!button) {
    log::error("--button {}: unknown; write left, right or middle", options.button);
    return exit_usage;
  }
  const PointAction action = options.twice ? PointAction::DoubleClick : PointAction::Click;
  return report(ask(options.machine, control::Point{options.x, options.y, action, *button}, {}));
}

int move_pointer(const PointerOptions& options) {
  return report(ask(options.machine, control::Point{.x = options.x, .y = options.y}, {}));
}

int drag(const PointerOptions& options) {
  using control::PointAction;
  const auto button = button_named(options.button);
  if (!button) {
    log::error("--button {}: unknown; write left, right or middle", options.button);
    return exit_usage;
  }
  // The button comes up again whatever the way was.
  auto done = ask(options.machine, control::Point{options.x, options.y, PointAction::Press, *button}, {});
  if (!done) return report(done);
  done = ask(options.machine, control::Point{options.to_x, options.to_y, PointAction::Move, *button}, {});
  const bool there = done.has_value();
  const auto released = ask(
      options.machine,
      control::Point{there ? options.to_x : options.x, there ? options.to_y : options.y, PointAction::Release, *button},
      {});
  return report(there ? released : done);
}

}  // namespace caisson::cli
