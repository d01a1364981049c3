#include "life/vmm_process.h"

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <utility>

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace caisson::life {

Result<std::string> sibling_program(const std::string& name, const std::string& what) {
  std::array<char, PATH_MAX> path{};
  const ssize_t size = ::readlink("/proc/self/exe", path.data(), path.size());
  if (size <= 0 || static_cast<size_t>(size) == path.size())
    return fail_errno(errno, "cannot find this program's folder");
  std::string program{path.data(), static_cast<size_t>(size)};
  program.resize(program.rfind('/') + 1);
  program += name;
  if (::access(program.c_str(), X_OK) != 0) {
    return fail_errno(errno,
                      fmt::format("{}, which {}, is not beside this program; build or install both", program, what));
  }
  return program;
}

Result<std::string> vmm_program() { return sibling_program("caisson-vmm", "runs the machine"); }

namespace {

// What start_ahead() has made.
std::optional<VmmProcess::Started>& ahead() {
  static std::optional<VmmProcess::Started> started;
  return started;
}

}  // namespace

void VmmProcess::start_ahead() {
  const auto program = vmm_program();
  if (!program) return;  // whoever needs it says so
  if (auto started = start(*program)) ahead() = std::move(*started);
}

Result<VmmProcess::Started> VmmProcess::start(const std::string& program, const Fd* log_file) {
  if (log_file == nullptr && ahead()) {
    Started started = std::move(*ahead());
    ahead().reset();
    return started;
  }
  auto channel = control::Channel::create_pair();
  if (!channel) return std::unexpected(channel.error());
  std::array<int, 2> console{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console.data()) != 0) {
    return fail_errno(errno, "cannot make the console's socket");
  }
  Fd our_console{console[0]};
  Fd guest_console{console[1]};
  std::array<int, 2> log{};
  Fd log_read;
  Fd log_write;
  if (log_file == nullptr) {
    if (::pipe2(log.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make the log's pipe");
    log_read = Fd{log[0]};
    log_write = Fd{log[1]};
  }

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_adddup2(&actions, log_file != nullptr ? log_file->get() : log_write.get(), STDERR_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, channel->second.fd(), 3);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, 4);
  // This process blocks and ignores signals that the child must see as usual. In a session of its own the child gets no
  // Ctrl-C meant for us, and no hang-up of our terminal.
  sigset_t none;
  sigset_t defaults;
  ::sigemptyset(&none);
  ::sigemptyset(&defaults);
  for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTTOU, SIGTSTP}) ::sigaddset(&defaults, signal);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);

  std::string name = "caisson-vmm";
  std::array<char*, 2> arguments{name.data(), nullptr};
  VmmProcess process;
  const int error = ::posix_spawn(&process.pid_, program.c_str(), &actions, &attributes, arguments.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    process.pid_ = -1;
    return fail_errno(error, "cannot start " + program);
  }
  process.pidfd_ = Fd{static_cast<int>(::syscall(SYS_pidfd_open, process.pid_, 0))};
  if (!process.pidfd_.valid()) return fail_errno(errno, "cannot watch " + program);
  return Started{std::move(process), VmmLink{std::move(channel->first), std::move(our_console), std::move(log_read)},
                 std::move(guest_console)};
}

VmmProcess::VmmProcess(VmmProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}

VmmProcess& VmmProcess::operator=(VmmProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(pidfd_, other.pidfd_);
  return *this;
}

VmmProcess::~VmmProcess() {
  if (pid_ < 0) return;
  kill();
  [[maybe_unused]] const auto status = wait();
}

void VmmProcess::kill() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

std::optional<int> VmmProcess::wait() {
  if (pid_ < 0) return std::nullopt;
  int status = 0;
  pid_t done;
  do {
    done = ::waitpid(pid_, &status, 0);
  } while (done < 0 && errno == EINTR);
  pid_ = -1;
  return done < 0 ? std::nullopt : std::optional{status};
}

}  // namespace caisson::life
