#include "cli/guest_exec.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <optional>

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/frames.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/write_all.h"
#include "cli/escape.h"
#include "cli/exit_status.h"
#include "cli/ssh_access.h"
#include "cli/terminal.h"
#include "cli/way_in.h"
#include "life/agent_link.h"

namespace caisson::cli {
namespace {

using agent::Frame;
using agent::Type;

// So much waits for the guest; then standard input is not read.
constexpr size_t most_waiting = 256 * 1024;

agent::Window window_of(const Terminal& terminal) {
  const WindowSize size = terminal.size().value_or(WindowSize{});
  return {static_cast<uint16_t>(size.columns), static_cast<uint16_t>(size.rows)};
}

class Execution {
 public:
  Execution(const Fd& connection, bool terminal) : connection_(connection.get()), with_terminal_(terminal) {}

  Result<int> run(const std::vector<std::string>& words) {
    agent::Execution wanted;
    wanted.terminal = with_terminal_;
    wanted.window = window_of(terminal_);
    wanted.words = words;
    for (const char* name : {"TERM", "LANG"}) {
      if (const char* value = std::getenv(name)) wanted.environment.push_back(fmt::format("{}={}", name, value));
    }
    const std::string packed = agent::pack(wanted);
    if (words.size() > agent::Execution::max_words || packed.size() > agent::max_payload) {
      return fail("the command is too long: {} words, {} bytes; at most {} and about {}", words.size(), packed.size(),
                  agent::Execution::max_words, agent::max_payload);
    }
    to_guest_ = agent::encode(Type::Execute, packed);
    ::fcntl(connection_, F_SETFL, ::fcntl(connection_, F_GETFL) | O_NONBLOCK);
    sigset_t resized;
    ::sigemptyset(&resized);
    ::sigaddset(&resized, SIGWINCH);
    ::sigprocmask(SIG_BLOCK, &resized, nullptr);
    const Fd signals{::signalfd(-1, &resized, SFD_CLOEXEC | SFD_NONBLOCK)};
    if (with_terminal_) terminal_.enter();
    while (!status_ && !left_) {
      if (auto done = round(signals.get()); !done) return std::unexpected(done.error());
    }
    terminal_.leave();
    if (left_) log::line(log::Level::Info, "left; what was started goes on only if it minds no hang-up");
    return left_ ? exit_stopped : *status_;
  }

 private:
  Result<> round(int signals) {
    const bool reads = input_open_ && to_guest_.size() < most_waiting;
    std::array<pollfd, 3> fds{{
        {connection_, static_cast<short>(POLLIN | (to_guest_.empty() ? 0 : POLLOUT)), 0},
        {reads ? STDIN_FILENO : -1, POLLIN, 0},
        {signals, POLLIN, 0},
    }};
    if (::poll(fds.data(), fds.size(), -1) < 0) return errno == EINTR ? Result<>{} : fail_errno(errno, "cannot wait");
    if (fds[2].revents != 0) {
      signalfd_siginfo info{};
      while (::read(signals, &info, sizeof info) == sizeof info) {
      }
      if (with_terminal_) to_guest_ += agent::encode(Type::Resize, agent::pack(window_of(terminal_)));
    }
    if (fds[1].revents != 0) read_input();
    if ((fds[0].revents & POLLOUT) != 0) {
      const ssize_t size = ::send(connection_, to_guest_.data(), to_guest_.size(), MSG_NOSIGNAL);
      if (size > 0) to_guest_.erase(0, static_cast<size_t>(size));
      // Gone: what it has said before comes first.
      if (size < 0 && errno != EAGAIN && errno != EINTR) to_guest_.clear();
    }
    if ((fds[0].revents & ~POLLOUT) != 0) return read_guest();
    return {};
  }

  void read_input() {
    std::array<char, 32 * 1024> bytes;
    const ssize_t size = ::read(STDIN_FILENO, bytes.data(), bytes.size());
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {
      input_open_ = false;
      to_guest_ += agent::encode(Type::InputEnd, {});
      return;
    }
    std::string_view given{bytes.data(), static_cast<size_t>(size)};
    if (!with_terminal_) {
      to_guest_ += agent::encode(Type::Input, given);
      return;
    }
    std::string typed;
    while (!given.empty()) {
      const EscapeAction action = escape_.feed(given, typed);
      if (action == EscapeAction::Quit) left_ = true;
    }
    if (!typed.empty()) to_guest_ += agent::encode(Type::Input, typed);
  }

  Result<> read_guest() {
    if (auto ok = life::feed(reader_, connection_); !ok) return ok;
    while (!status_) {
      auto frame = reader_.next();
      if (!frame) return std::unexpected(frame.error());
      if (!*frame) return {};
      const Frame& one = **frame;
      if (one.type == Type::Output || one.type == Type::Errors) {
        // Nobody reads it any more: the command is told by a hang-up, as it would be here by SIGPIPE.
        if (write_all(one.type == Type::Output ? STDOUT_FILENO : STDERR_FILENO, one.payload) != 0) {
          status_ = 128 + SIGPIPE;
        }
      } else if (one.type == Type::Exit) {
        const auto status = agent::unpack_number(one.payload);
        if (!status) return std::unexpected(status.error());
        status_ = static_cast<int>(*status & 0xff);
      } else if (one.type == Type::Failed) {
        return fail("{}", agent::plain(one.payload));
      } else {
        return fail("the agent in the guest sent what was not asked for");
      }
    }
    return {};
  }

  const int connection_;
  const bool with_terminal_;
  Terminal terminal_;
  Escape escape_;
  agent::FrameReader reader_;
  std::string to_guest_;
  std::optional<int> status_;
  bool input_open_ = true;
  bool left_ = false;
};

}  // namespace

int exec_command(const std::string& name, const std::vector<std::string>& words) {
  if (words.empty()) {
    log::error("which command? write for example: caisson exec {} uname -r", name);
    return exit_usage;
  }
  const auto way = way_in(name, Ways::AgentOrSsh);
  if (!way) {
    log::error("{}", way.error().message);
    return exit_unreachable;
  }
  const bool terminal = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
  if (!way->agent.valid()) return execute_by_ssh(way->ssh_port, words, terminal);
  const auto status = Execution{way->agent, terminal}.run(words);
  if (status) return *status;
  log::error("exec {}: {}", name, status.error().message);
  return exit_unreachable;
}

}  // namespace caisson::cli
