// caisson-fetch: what `caisson image pull` needs a network or a signature for, in a process of its own. It holds no
// right to write any file but its standard input, which the caller has opened for it.
//   get FROM MOST STALL VALIDATOR URL    the file at the address into standard input's file; JSON lines on standard
//   output verify KEY SIGNATURE                 standard input's file against the signature in that file Exit     0
//   done, 1 not, 75 (EX_TEMPFAIL of sysexits.h) not now: the same may work later Threads  main
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <curl/curl.h>

#include "base/event_loop.h"
#include "base/fd.h"
#include "fetch/signature.h"
#include "fetch/transfer.h"

namespace caisson::fetch {
namespace {

constexpr int not_now = 75;
constexpr uint64_t progress_ns = 100'000'000;

void say(const nlohmann::json& line) {
  fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  std::fflush(stdout);
}

int say_error(const Error& error, int status) {
  say({{"type", "error"}, {"message", error.message}});
  return status;
}

// Whatever comes from the network: no file can be made, opened for writing, renamed or removed any more.
void confine() {
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return;
  landlock_ruleset_attr attribute{};
  attribute.handled_access_fs =
      LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
      LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |
      LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
      LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM;
  // Kernels without it go without; the caller's file is open already.
  const Fd rules{
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attribute, sizeof attribute.handled_access_fs, 0))};
  if (rules.valid()) ::syscall(SYS_landlock_restrict_self, rules.get(), 0);
}

int get(const std::vector<std::string>& words) {
  const Request request{.url = words[6],
                        .from = std::strtoull(words[2].c_str(), nullptr, 10),
                        .validator = words[5],
                        .most = std::strtoull(words[3].c_str(), nullptr, 10),
                        .stall_s = static_cast<unsigned>(std::strtoul(words[4].c_str(), nullptr, 10))};
  uint64_t shown_ns = 0;
  Told told;
  told.begins = [](const std::string& validator, uint64_t from, uint64_t total) {
    say({{"type", "begins"}, {"validator", validator}, {"from", from}, {"total", total}});
  };
  told.progress = [&](uint64_t done, uint64_t total) {
    const uint64_t now = EventLoop::now_ns();
    if (now - shown_ns < progress_ns) return;
    shown_ns = now;
    say({{"type", "progress"}, {"done", done}, {"total", total}});
  };
  const auto done = transfer(request, STDIN_FILENO, told);
  if (!done) return say_error(done.error().error, done.error().again ? not_now : 1);
  // On the disk before anybody builds on it.
  if (::fsync(STDIN_FILENO) != 0) return say_error(fail_errno(errno, "cannot write the download").error(), 1);
  say({{"type", "done"}, {"size", *done}});
  return 0;
}

int check(const std::vector<std::string>& words) {
  const auto key = parse_key(words[2]);
  if (!key) return say_error(key.error(), 1);
  const Fd file{::open(words[3].c_str(), O_RDONLY | O_CLOEXEC)};
  std::string text(16 * 1024, '\0');
  const ssize_t size = file.valid() ? ::read(file.get(), text.data(), text.size()) : -1;
  if (size < 0) return say_error(fail_errno(errno, "cannot read " + words[3]).error(), 1);
  text.resize(static_cast<size_t>(size));
  const auto signature = parse_signature(text);
  if (!signature) return say_error(signature.error(), 1);
  const auto comment = verify(*key, *signature, STDIN_FILENO);
  if (!comment) return say_error(comment.error(), 1);
  say({{"type", "signed"}, {"comment", *comment}});
  return 0;
}

int main_program(const std::vector<std::string>& words) {
  // Ends with its caller.
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() == 1) return 1;
  confine();
  if (words.size() == 7 && words[1] == "get") return get(words);
  if (words.size() == 4 && words[1] == "verify") return check(words);
  fmt::print(stderr, "caisson-fetch: a part of caisson; use caisson image pull\n");
  return 2;
}

}  // namespace
}  // namespace caisson::fetch

int main(int count, char** arguments) {
  ::signal(SIGPIPE, SIG_IGN);
  ::curl_global_init(CURL_GLOBAL_DEFAULT);
  const int status = caisson::fetch::main_program({arguments, arguments + count});
  ::curl_global_cleanup();
  return status;
}
