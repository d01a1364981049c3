#include "life/child.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <fmt/core.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace caisson::life {
namespace {

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// Some systems keep mke2fs and others out of an ordinary user's PATH.
std::string search_path() {
  const char* path = std::getenv("PATH");
  return fmt::format("{}:/usr/local/sbin:/usr/sbin:/sbin", path != nullptr && *path != '\0' ? path : "/usr/bin:/bin");
}

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const std::string path = search_path();
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find(':', start), path.size());
    if (end > start) {
      std::string candidate = path.substr(start, end - start) + "/" + name;
      if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    }
    start = end + 1;
  }
  return {};
}

}  // namespace

bool in_path(const std::string& program) { return !find_program(program).empty(); }

Result<Child> Child::start(const std::vector<std::string>& arguments, const ChildStreams& streams,
                           const std::vector<std::string>& extra_environment) {
  const std::string program = find_program(arguments.front());
  if (program.empty()) return fail("{} is not installed; install it first", arguments.front());

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  const auto stream = [&](int from, int to, int flags) {
    if (from >= 0) {
      ::posix_spawn_file_actions_adddup2(&actions, from, to);
    } else {
      ::posix_spawn_file_actions_addopen(&actions, to, "/dev/null", flags, 0);
    }
  };
  stream(streams.in, STDIN_FILENO, O_RDONLY);
  stream(streams.out, STDOUT_FILENO, O_WRONLY);
  stream(streams.error, STDERR_FILENO, O_WRONLY);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  sigset_t none;
  sigset_t defaults;
  ::sigemptyset(&none);
  ::sigemptyset(&defaults);
  for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&defaults, signal);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  std::vector<std::string> environment = extra_environment;
  environment.push_back("PATH=" + search_path());
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text{*entry};
    const auto name = text.substr(0, text.find('=') + 1);
    bool replaced = false;
    for (const auto& other : environment) replaced = replaced || other.starts_with(name);
    if (!replaced) environment.emplace_back(text);
  }
  std::vector<std::string> texts = arguments;
  pid_t pid = -1;
  const int error =
      ::posix_spawn(&pid, program.c_str(), &actions, &attributes, pointers(texts).data(), pointers(environment).data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno(error, "cannot start " + program);
  return Child{pid};
}

Child::Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

Child::~Child() {
  if (pid_ < 0) return;
  signal(SIGKILL);
  [[maybe_unused]] const int status = wait();
}

void Child::signal(int number) {
  if (pid_ > 0) ::kill(-pid_, number);
}

int Child::wait() {
  int status = 0;
  pid_t done;
  do {
    done = ::waitpid(pid_, &status, 0);
  } while (done < 0 && errno == EINTR);
  pid_ = -1;
  if (done < 0) return 1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

Result<Captured> capture(const std::vector<std::string>& arguments) {
  auto pipe = make_pipe();
  if (!pipe) return std::unexpected(pipe.error());
  auto child = Child::start(arguments, {-1, pipe->write.get(), pipe->write.get()});
  if (!child) return std::unexpected(child.error());
  pipe->write.reset();
  Captured captured;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t size = ::read(pipe->read.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    if (captured.out.size() < 1024 * 1024) captured.out.append(buffer.data(), static_cast<size_t>(size));
  }
  captured.status = child->wait();
  return captured;
}

bool succeeds(const std::vector<std::string>& arguments) {
  const auto captured = capture(arguments);
  return captured && captured->status == 0;
}

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  return Pipe{Fd{ends[0]}, Fd{ends[1]}};
}

}  // namespace caisson::life
