#include "guest/command.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

namespace caisson::guest {
namespace {

using agent::Frame;
using agent::Type;

// So much waits for a command that does not read, and for a host that does not: then we read no more.
constexpr size_t most_waiting = 256 * 1024;
constexpr int status_not_found = 127, status_not_run = 126;  // as shells say it

struct Streams {
  Fd input;   // to the command
  Fd output;  // from it
  Fd errors;  // invalid with a terminal
};

struct Ends {
  Fd read, write;
};
Result<Ends> make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  return Ends{Fd{fds[0]}, Fd{fds[1]}};
}

void set_window(int terminal, const agent::Window& window) {
  winsize size{};
  size.ws_col = window.columns;
  size.ws_row = window.rows;
  ::ioctl(terminal, TIOCSWINSZ, &size);
}

// In the child; never returns.
[[noreturn]] void become(const agent::Execution& wanted) {
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::clearenv();
  ::setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
  ::setenv("HOME", "/root", 1);
  ::setenv("USER", "root", 1);
  ::setenv("LOGNAME", "root", 1);
  ::setenv("SHELL", "/bin/sh", 1);
  for (const std::string& one : wanted.environment) {
    if (const size_t equals = one.find('='); equals != std::string::npos && equals > 0) {
      ::setenv(one.substr(0, equals).c_str(), one.c_str() + equals + 1, 1);
    }
  }
  const std::string folder = wanted.directory.empty() ? "/root" : wanted.directory;
  if (::chdir(folder.c_str()) != 0 && (!wanted.directory.empty() || ::chdir("/") != 0)) {
    ::dprintf(STDERR_FILENO, "caisson: cannot go to %s: %s\n", folder.c_str(), std::strerror(errno));
    ::_exit(status_not_run);
  }
  std::vector<char*> words;
  for (const std::string& word : wanted.words) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execvp(words[0], words.data());
  const int error = errno;
  ::dprintf(STDERR_FILENO, "caisson: cannot run %s: %s\n", words[0], std::strerror(error));
  ::_exit(error == ENOENT ? status_not_found : status_not_run);
}

Result<pid_t> start(const agent::Execution& wanted, Streams& streams) {
  if (wanted.terminal) {
    int terminal = -1;
    const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
    if (child < 0) return fail_errno(errno, "cannot make a terminal");
    if (child == 0) {
      set_window(STDIN_FILENO, wanted.window);
      become(wanted);
    }
    streams.output = Fd{terminal};
    ::fcntl(terminal, F_SETFD, FD_CLOEXEC);
    streams.input = Fd{::fcntl(terminal, F_DUPFD_CLOEXEC, 3)};
    return child;
  }
  auto in = make_pipe();
  auto out = make_pipe();
  auto err = make_pipe();
  if (!in || !out || !err) return fail("cannot make pipes");
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "cannot start a process");
  if (child == 0) {
    ::setsid();
    ::dup2(in->read.get(), STDIN_FILENO);
    ::dup2(out->write.get(), STDOUT_FILENO);
    ::dup2(err->write.get(), STDERR_FILENO);
    become(wanted);
  }
  streams = {std::move(in->write), std::move(out->read), std::move(err->read)};
  return child;
}

class Command {
 public:
  Command(int connection, agent::FrameReader& reader, bool terminal)
      : connection_(connection), reader_(reader), terminal_(terminal) {}

  Result<uint64_t> run(const agent::Execution& wanted) {
    auto child = start(wanted, streams_);
    if (!child) return std::unexpected(child.error());
    child_ = *child;
    ended_ = Fd{static_cast<int>(::syscall(SYS_pidfd_open, child_, 0))};
    if (!ended_.valid()) return fail_errno(errno, "cannot watch the command");
    for (const int fd : {connection_, streams_.input.get(), streams_.output.get(), streams_.errors.get()}) {
      if (fd >= 0) ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
    }
    if (auto done = take_frames(); !done) return over(done.error());
    for (;;) {
      if (auto done = round(); !done) return over(done.error());
      if (gone_) return over({"the host has gone"});
      if (status_ && !streams_.output.valid() && !streams_.errors.valid()) break;
    }
    // What is left to send may wait.
    ::fcntl(connection_, F_SETFL, ::fcntl(connection_, F_GETFL) & ~O_NONBLOCK);
    agent::Stream stream{connection_};
    if (auto done = stream.send_encoded(to_host_); !done) return std::unexpected(done.error());
    return *status_;
  }

 private:
  Result<uint64_t> over(Error error) {
    if (!status_) ::kill(-child_, SIGHUP);
    return std::unexpected(std::move(error));
  }

  Result<> round() {
    const bool room = to_host_.size() < most_waiting;
    std::array<pollfd, 5> fds{{
        {connection_,
         static_cast<short>((to_child_.size() < most_waiting ? POLLIN : 0) | (to_host_.empty() ? 0 : POLLOUT)), 0},
        {to_child_.empty() ? -1 : streams_.input.get(), POLLOUT, 0},
        {room ? streams_.output.get() : -1, POLLIN, 0},
        {room ? streams_.errors.get() : -1, POLLIN, 0},
        {status_ ? -1 : ended_.get(), POLLIN, 0},
    }};
    // After the command's end its output is what is there now: something it left running may hold it for ever.
    const int ready = ::poll(fds.data(), fds.size(), status_ && room ? 0 : -1);
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for the command");
    if (ready == 0 && status_) {
      streams_.output.reset();
      streams_.errors.reset();
      return {};
    }
    if (fds[2].revents != 0) read_output(streams_.output, Type::Output);
    if (fds[3].revents != 0) read_output(streams_.errors, Type::Errors);
    if (fds[4].revents != 0) reap();
    if (fds[1].revents != 0) write_input();
    if ((fds[0].revents & POLLOUT) != 0) write_host();
    if ((fds[0].revents & ~POLLOUT) != 0) return read_host();
    return {};
  }

  void reap() {
    int status = 0;
    if (::waitpid(child_, &status, WNOHANG) != child_) return;
    status_ = WIFSIGNALED(status) ? 128u + static_cast<unsigned>(WTERMSIG(status))
                                  : static_cast<unsigned>(WEXITSTATUS(status));
    streams_.input.reset();
    to_child_.clear();
  }

  void read_output(Fd& from, Type type) {
    std::array<char, 32 * 1024> bytes;
    const ssize_t size = ::read(from.get(), bytes.data(), bytes.size());
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {  // EIO is a terminal's end
      from.reset();
      return;
    }
    to_host_ += agent::encode(type, {bytes.data(), static_cast<size_t>(size)});
    write_host();
  }

  void write_host() {
    const ssize_t size = ::send(connection_, to_host_.data(), to_host_.size(), MSG_NOSIGNAL);
    if (size > 0) to_host_.erase(0, static_cast<size_t>(size));
    if (size < 0 && errno != EAGAIN && errno != EINTR) gone_ = true;
  }

  void write_input() {
    const ssize_t size = ::write(streams_.input.get(), to_child_.data(), to_child_.size());
    if (size > 0) to_child_.erase(0, static_cast<size_t>(size));
    if (size < 0 && errno != EAGAIN && errno != EINTR) {  // the command reads no more
      streams_.input.reset();
      to_child_.clear();
      input_ended_ = true;
    }
    if (to_child_.empty() && input_ended_ && !terminal_) streams_.input.reset();
  }

  Result<> read_host() {
    std::array<char, 64 * 1024> bytes;
    const ssize_t size = ::recv(connection_, bytes.data(), bytes.size(), 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (size <= 0) {
      gone_ = true;
      return {};
    }
    reader_.feed({bytes.data(), static_cast<size_t>(size)});
    return take_frames();
  }

  Result<> take_frames() {
    for (;;) {
      auto frame = reader_.next();
      if (!frame) return std::unexpected(frame.error());
      if (!*frame) return {};
      const Frame& one = **frame;
      if (one.type == Type::Input) {
        if (streams_.input.valid() && !input_ended_) to_child_ += one.payload;
      } else if (one.type == Type::InputEnd) {
        input_ended_ = true;
        if (terminal_) {
          to_child_ += '\4';  // as typed: end of file
        } else if (to_child_.empty()) {
          streams_.input.reset();
        }
      } else if (one.type == Type::Resize) {
        const auto window = agent::unpack_window(one.payload);
        if (!window) return std::unexpected(window.error());
        if (terminal_ && streams_.output.valid()) set_window(streams_.output.get(), *window);
      } else {
        return fail("the host sent what does not belong to a running command");
      }
    }
  }

  const int connection_;
  agent::FrameReader& reader_;
  const bool terminal_;
  Streams streams_;
  pid_t child_ = -1;
  Fd ended_;
  std::optional<uint64_t> status_;
  bool input_ended_ = false;
  bool gone_ = false;
  std::string to_child_, to_host_;
};

}  // namespace

Result<uint64_t> run_command(int connection, agent::FrameReader& reader, const agent::Execution& wanted) {
  return Command{connection, reader, wanted.terminal}.run(wanted);
}

}  // namespace caisson::guest
