#include "cli/foreign_image.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "life/child.h"

namespace caisson::cli {
namespace {

constexpr std::array<std::string_view, 3> formats{"vmdk", "vhdx", "vdi"};

constexpr const char* program = "/usr/bin/qemu-img";

constexpr uint64_t reading = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_EXECUTE;
constexpr uint64_t writing = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
// Everything that the first version of Landlock can forbid.
constexpr uint64_t first_rights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
// Later versions: linking elsewhere, truncating.
constexpr uint64_t right_refer = uint64_t{1} << 13, right_truncate = uint64_t{1} << 14;

long landlock_version() { return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION); }

bool allow(int rules, const char* path, uint64_t rights) {
  const Fd fd{::open(path, O_PATH | O_CLOEXEC)};
  if (!fd.valid()) return errno == ENOENT;
  landlock_path_beneath_attr attribute{.allowed_access = rights, .parent_fd = fd.get()};
  return ::syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &attribute, 0) == 0;
}

// What a program that reads and writes files has no use for.
bool forbid_system_calls() {
  constexpr std::array forbidden{SYS_socket,
                                 SYS_ptrace,
                                 SYS_process_vm_readv,
                                 SYS_process_vm_writev,
                                 SYS_mount,
                                 SYS_umount2,
                                 SYS_pivot_root,
                                 SYS_chroot,
                                 SYS_unshare,
                                 SYS_setns,
                                 SYS_bpf,
                                 SYS_perf_event_open,
                                 SYS_keyctl,
                                 SYS_add_key,
                                 SYS_request_key,
                                 SYS_kexec_load,
                                 SYS_init_module,
                                 SYS_finit_module,
                                 SYS_io_uring_setup,
                                 SYS_userfaultfd,
                                 SYS_open_by_handle_at};
  std::vector<sock_filter> code{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      // The x32 calls.
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  for (const long number : forbidden) {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1));
    code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
  }
  code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<unsigned short>(code.size()), code.data()};
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// In the child, before it becomes qemu-img. False: it must not.
bool confine(const std::string& readable, const std::string& writable) {
  const auto limit = [](auto resource, rlim_t most) {
    rlimit value{most, most};
    return ::setrlimit(resource, &value) == 0;
  };
  constexpr rlim_t gib = rlim_t{1} << 30;
  if (!limit(RLIMIT_AS, 4 * gib) || !limit(RLIMIT_CORE, 0) || !limit(RLIMIT_NOFILE, 64)) return false;
  if (!limit(RLIMIT_FSIZE, 65536 * gib)) return false;
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return false;

  const long version = landlock_version();
  uint64_t rights = first_rights, to_write = writing;
  if (version >= 2) rights |= right_refer;
  if (version >= 3) {
    rights |= right_truncate;
    to_write |= right_truncate;
  }
  landlock_ruleset_attr attribute{.handled_access_fs = rights};
  const Fd rules{
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attribute, sizeof attribute.handled_access_fs, 0))};
  if (!rules.valid()) return false;
  for (const char* path : {"/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ssl/openssl.cnf"}) {
    const bool folder = std::string_view{path}.find("/etc/") == std::string_view::npos;
    if (!allow(rules.get(), path, folder ? reading : uint64_t{LANDLOCK_ACCESS_FS_READ_FILE})) return false;
  }
  if (!allow(rules.get(), "/dev/null", writing)) return false;
  if (!readable.empty() && !allow(rules.get(), readable.c_str(), LANDLOCK_ACCESS_FS_READ_FILE)) return false;
  if (!writable.empty() && !allow(rules.get(), writable.c_str(), to_write)) return false;
  if (::syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0) return false;
  return forbid_system_calls();
}

std::string one_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  std::ranges::replace(text, '\n', ';');
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text.substr(0, 500);
}

// qemu-img -p writes "    (12.34/100%)" and a return, again and again; takes these out of `out`.
void take_progress(std::string& out, const ForeignProgress& progress) {
  for (auto end = out.find('\r'); end != std::string::npos; end = out.find('\r')) {
    const auto start = out.find('(');
    if (start < end) {
      const double part = std::strtod(out.c_str() + start + 1, nullptr) / 100;
      if (part >= 0 && part <= 1) progress(part);
    }
    out.erase(0, end + 1);
  }
}

Result<std::string> run_confined(const std::vector<std::string>& arguments, const std::string& readable,
                                 const std::string& writable, const ForeignProgress& progress = {}) {
  if (::access(program, X_OK) != 0) return fail("this format needs qemu-img; install it: apt-get install qemu-utils");
  if (landlock_version() < 1) {
    return fail(
        "this host's kernel has no Landlock to confine qemu-img with; convert the image with qemu-img where you trust "
        "it");
  }
  auto pipe = life::make_pipe();
  if (!pipe) return std::unexpected(pipe.error());
  std::vector<char*> texts;
  for (const std::string& argument : arguments) texts.push_back(const_cast<char*>(argument.c_str()));
  texts.push_back(nullptr);
  std::array<char*, 2> environment{const_cast<char*>("LC_ALL=C.UTF-8"), nullptr};
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "cannot start qemu-img");
  if (pid == 0) {
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    ::dup2(null, STDIN_FILENO);
    ::dup2(pipe->write.get(), STDOUT_FILENO);
    ::dup2(pipe->write.get(), STDERR_FILENO);
    ::closefrom(3);
    if (confine(readable, writable)) ::execve(program, texts.data(), environment.data());
    ::_exit(127);
  }
  pipe->write.reset();
  std::string out;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t size = ::read(pipe->read.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    if (out.size() < size_t{1} << 20) out.append(buffer.data(), static_cast<size_t>(size));
    if (progress) take_progress(out, progress);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return out;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return fail("qemu-img could not be confined on this host");
  if (WIFSIGNALED(status)) return fail("qemu-img was ended by signal {}", WTERMSIG(status));
  return fail("{}", one_line(out));
}

// QEMU takes "nbd:…" for something else than a file.
std::string plain(const std::string& path) { return path.starts_with('/') ? path : "./" + path; }

}  // namespace

std::optional<std::string_view> foreign_format_named(std::string_view name) {
  const auto found = std::ranges::find(formats, name);
  return found == formats.end() ? std::nullopt : std::optional{*found};
}

std::optional<std::string_view> foreign_format_by_name(std::string_view path) {
  const auto dot = path.rfind('.');
  return dot == std::string_view::npos ? std::nullopt : foreign_format_named(path.substr(dot + 1));
}

Result<> convert_foreign(const std::string& from, std::string_view from_format, const std::string& to,
                         std::string_view to_format, const ForeignProgress& progress) {
  auto done = run_confined(
      {program, "convert", "-p", "-f", std::string{from_format}, "-O", std::string{to_format}, plain(from), plain(to)},
      from, to, progress);
  if (!done) return with_context("disk " + from, done.error());
  return {};
}

Result<std::string> foreign_info(const std::string& path, std::string_view format, bool json) {
  std::vector<std::string> arguments{program, "info", "-f", std::string{format}, plain(path)};
  if (json) arguments.insert(arguments.begin() + 2, "--output=json");
  auto done = run_confined(arguments, path, {});
  if (!done) return with_context("disk " + path, done.error());
  return done;
}

}  // namespace caisson::cli
