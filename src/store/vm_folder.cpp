#include "store/vm_folder.h"

#include <cerrno>
#include <ctime>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/json_fields.h"
#include "store/files.h"

namespace caisson::store {
namespace {

constexpr size_t max_spec = 256 * 1024;
constexpr size_t max_events = 4 << 20;
constexpr uint64_t keep_events = 256 * 1024;
constexpr uint64_t lock_patience_ms = 5000;

void sleep_ms(uint64_t ms) {
  const timespec time{static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000 * 1'000'000)};
  ::nanosleep(&time, nullptr);
}

struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

// A socket's address has room for 107 bytes only; a folder's path may be longer.
sockaddr_un control_address(int folder) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}/control", folder);
  path.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
  return address;
}

}  // namespace

Result<VmFolder> VmFolder::open(std::string path, std::string name) {
  Fd fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!fd.valid()) return fail_errno(errno, "machine " + name + ": " + path);
  return VmFolder{std::move(path), std::move(name), std::move(fd)};
}

bool VmFolder::has_spec() const { return ::faccessat(fd_.get(), config_file, F_OK, 0) == 0; }

Result<VmSpec> VmFolder::spec() const {
  auto text = read_file(file(config_file), max_spec);
  if (!text) return with_context("machine " + name_, text.error());
  auto spec = VmSpec::parse(*text);
  if (!spec) {
    // There is nothing wrong with what a newer version has written.
    if (auto ok = VmSpec::not_newer(*text); !ok) {
      return fail("machine {}: {}: {}", name_, file(config_file), ok.error().message);
    }
    return fail("machine {}: {}: {}; correct that file, or remove the machine with: caisson rm {}", name_,
                file(config_file), spec.error().message, name_);
  }
  return spec;
}

Result<> VmFolder::save(const VmSpec& spec) const {
  if (auto ok = spec.validate(); !ok) return with_context("machine " + name_, ok.error());
  if (auto ok = write_file(file(config_file), spec.serialise(), !spec.transient); !ok)
    return with_context("machine " + name_, ok.error());
  return {};
}

bool VmFolder::still_there() const {
  struct stat ours {};
  struct stat named {};
  return ::fstat(fd_.get(), &ours) == 0 && ::stat(path_.c_str(), &named) == 0 && ours.st_ino == named.st_ino &&
         ours.st_dev == named.st_dev;
}

Result<std::optional<Fd>> VmFolder::try_lock() const {
  Fd lock{::openat(fd_.get(), "lock", O_RDWR | O_CLOEXEC)};
  // Made where there never was one, not in a folder that is being emptied.
  if (!lock.valid() && errno == ENOENT && still_there()) {
    lock = Fd{::openat(fd_.get(), "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
  }
  if (!lock.valid()) {
    if (errno == ENOENT || !still_there()) return fail("machine {} has been removed", name_);
    return fail_errno(errno, "machine " + name_ + ": cannot open " + file("lock"));
  }
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return std::nullopt;
    return fail_errno(errno, "machine " + name_ + ": cannot lock " + file("lock"));
  }
  if (!still_there()) return fail("machine {} has been removed or renamed by another command", name_);
  return lock;
}

Result<Fd> VmFolder::lock() const {
  for (uint64_t waited = 0;; waited += 10) {
    auto lock = try_lock();
    if (!lock) return std::unexpected(lock.error());
    if (*lock) return std::move(**lock);
    if (waited >= lock_patience_ms) break;
    sleep_ms(10);
  }
  return fail("machine {} is being changed by another command; try again when that is done", name_);
}

bool VmFolder::alive() const {
  const Fd fd{::openat(fd_.get(), "alive", O_RDWR | O_CLOEXEC)};
  if (!fd.valid()) return false;
  struct flock lock = whole_file();
  return ::fcntl(fd.get(), F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

Result<std::optional<Fd>> VmFolder::take_life() const {
  Fd fd{::openat(fd_.get(), "alive", O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
  if (!fd.valid()) return fail_errno(errno, "machine " + name_ + ": cannot open " + file("alive"));
  struct flock lock = whole_file();
  if (::fcntl(fd.get(), F_OFD_SETLK, &lock) == 0) return fd;
  if (errno == EAGAIN || errno == EACCES) return std::nullopt;
  return fail_errno(errno, "machine " + name_ + ": cannot lock " + file("alive"));
}

bool VmFolder::wait_for_end(uint64_t timeout_ms) const {
  for (uint64_t waited = 0; alive(); waited += 5) {
    if (waited >= timeout_ms) return false;
    sleep_ms(5);
  }
  return true;
}

Result<Fd> VmFolder::bind_control() const {
  Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  const auto address = control_address(fd_.get());
  if (!socket.valid()) return fail_errno(errno, "machine " + name_ + ": cannot make the control socket");
  ::unlinkat(fd_.get(), "control", 0);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "machine " + name_ + ": cannot make the socket " + file("control"));
  }
  return socket;
}

Result<Fd> VmFolder::connect_control() const {
  Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  const auto address = control_address(fd_.get());
  if (!socket.valid()) return fail_errno(errno, "machine " + name_ + ": cannot make a socket");
  // Where the machine's process does not take connections any more.
  const timeval patience{2, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "machine " + name_ + ": cannot connect to " + file("control"));
  }
  return socket;
}

Result<Fd> VmFolder::open_log(const char* name) const {
  Fd fd{::openat(fd_.get(), name, O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
  if (!fd.valid()) return fail_errno(errno, "machine " + name_ + ": cannot open " + file(name));
  return fd;
}

Result<Fd> VmFolder::open_events() const {
  const std::string path = file(events_log);
  struct stat status {};
  if (::fstatat(fd_.get(), events_log, &status, 0) == 0 && static_cast<uint64_t>(status.st_size) > keep_events) {
    auto text = read_file(path, max_events);
    std::string kept = text ? text->substr(text->size() > keep_events / 2 ? text->size() - keep_events / 2 : 0) : "";
    kept.erase(0, kept.find('\n') + 1);
    if (auto ok = write_file(path, kept); !ok) return std::unexpected(ok.error());
  }
  Fd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600)};
  if (!fd.valid()) return fail_errno(errno, "machine " + name_ + ": cannot open " + path);
  // A line that was cut short stays alone.
  char last = '\n';
  const off_t end = ::lseek(fd.get(), 0, SEEK_END);
  if (end > 0 && ::pread(fd.get(), &last, 1, end - 1) == 1 && last != '\n' && ::write(fd.get(), "\n", 1) != 1) {
    return fail_errno(errno, "machine " + name_ + ": cannot write " + path);
  }
  return fd;
}

std::optional<TimedEvent> parse_event_line(std::string_view line) {
  auto json = control::parse_json(line);
  if (!json || !json->is_object()) return std::nullopt;
  const auto at = json->find("at");
  if (at == json->end() || !at->is_number_unsigned()) return std::nullopt;
  const auto at_ms = at->get<uint64_t>();
  json->erase("at");
  auto event = control::parse_event(control::dump_json(*json));
  if (!event) return std::nullopt;
  return TimedEvent{at_ms, std::move(*event)};
}

std::vector<TimedEvent> VmFolder::events() const {
  std::vector<TimedEvent> events;
  const auto text = read_file(file(events_log), max_events);
  if (!text) return events;
  for (size_t start = 0; start < text->size();) {
    const size_t end = std::min(text->find('\n', start), text->size());
    if (auto event = parse_event_line(std::string_view{*text}.substr(start, end - start)))
      events.push_back(std::move(*event));
    start = end + 1;
  }
  return events;
}

VmFolder::LastLife VmFolder::last_life() const {
  LastLife life;
  for (const TimedEvent& one : events()) {
    if (std::holds_alternative<control::Started>(one.event)) life = {one.at_ms, std::nullopt, std::nullopt};
    if (const auto* exited = std::get_if<control::Exited>(&one.event)) {
      life.ended_ms = one.at_ms;
      life.exited = *exited;
    }
  }
  return life;
}

}  // namespace caisson::store
