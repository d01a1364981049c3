#include "store/cpu_group.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <optional>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/children.h"
#include "store/files.h"

namespace caisson::store {
namespace {

constexpr const char* trace_file = "cpu-group";
constexpr std::string_view name_prefix = "caisson-";
constexpr size_t max_proc = 1 << 20;
constexpr uint64_t period_us = 100'000;

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(at, start), text.size());
    if (end > start) parts.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

bool has_word(std::string_view list, char between, std::string_view word) {
  const auto words = split(list, between);
  return std::ranges::find(words, word) != words.end();
}

bool inside(std::string_view path, std::string_view folder) {
  return folder == "/" || path == folder || (path.starts_with(folder) && path[folder.size()] == '/');
}

struct Mount {
  std::string_view root;   // which group is seen at
  std::string_view point;  // this path
};

// The mount of that type (and, for version 1, controller) in mountinfo's text.
std::optional<Mount> find_mount(std::string_view mounts, std::string_view type, std::string_view controller) {
  for (const std::string_view line : split(mounts, '\n')) {
    const size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    const auto before = split(line.substr(0, dash), ' ');
    const auto after = split(line.substr(dash + 3), ' ');
    if (before.size() < 5 || after.size() < 3 || after[0] != type) continue;
    if (!controller.empty() && !has_word(after[2], ',', controller)) continue;
    if (before[4].find('\\') != std::string_view::npos) continue;  // spaces in it: nobody mounts control groups there
    return Mount{before[3], before[4]};
  }
  return std::nullopt;
}

// The caller's group in the file system; an error where the mount does not show it.
Result<std::string> group_path(const Mount& mount, std::string_view group) {
  if (!group.starts_with('/') || group.find("/..") != std::string_view::npos || !inside(group, mount.root))
    return fail("this process's control group {} is not to be seen below {}", group, mount.point);
  if (mount.root != "/") group.remove_prefix(mount.root.size());
  std::string path{mount.point};
  path += group;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

bool may_write(const std::string& path) { return ::access(path.c_str(), W_OK) == 0; }

// systemd marks what it has delegated, and gives a user's to that user.
bool is_delegated(const std::string& path) {
  std::array<char, 4> value{};
  for (const char* name : {"user.delegate", "trusted.delegate"}) {
    if (::getxattr(path.c_str(), name, value.data(), value.size()) >= 1 && value[0] == '1') return true;
  }
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && status.st_uid != 0;
}

bool hands_on_cpu(const std::string& path) {
  auto handed = read_file(path + "/cgroup.subtree_control", 4096);
  if (handed) std::ranges::replace(*handed, '\n', ' ');
  return handed && has_word(*handed, ' ', "cpu");
}

Result<CpuGroupPlace> find_version_1(std::string_view own, std::string_view mounts) {
  const auto mount = find_mount(mounts, "cgroup", "cpu");
  if (!mount) return fail("the cpu controller is not mounted");
  auto path = group_path(*mount, own);
  if (!path) return std::unexpected(path.error());
  if (!may_write(*path)) return fail("{} is not this user's", *path);
  return CpuGroupPlace{1, std::move(*path)};
}

Result<CpuGroupPlace> find_version_2(std::string_view own, std::string_view mounts, bool systemd) {
  const auto mount = find_mount(mounts, "cgroup2", "");
  if (!mount) return fail("no control groups are mounted");
  auto path = group_path(*mount, own);
  if (!path) return std::unexpected(path.error());
  const std::string own_path = *path;
  std::optional<std::string> place;
  for (;;) {
    if (!place && hands_on_cpu(*path) && may_write(*path) && may_write(*path + "/cgroup.procs")) place = *path;
    if (place && (!systemd || is_delegated(*path))) return CpuGroupPlace{2, std::move(*place)};
    if (*path == mount->point || path->rfind('/') == std::string::npos) break;
    path->erase(path->rfind('/'));
  }
  if (place) return fail("{} is systemd's, which has not delegated it", *place);
  return fail("nothing above {} that is this user's hands on the cpu controller", own_path);
}

Result<> put(const std::string& path, std::string_view text) {
  // As a shell would; where the kernel has no such file it makes none.
  const Fd fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
  if (!fd.valid() || ::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return fail_errno(errno, path);
  return {};
}

struct Trace {
  unsigned version;
  std::string path;
};

std::optional<Trace> read_trace(const VmFolder& folder) {
  const auto text = read_file(folder.file(trace_file), 4096);
  if (!text || text->size() < 4) return std::nullopt;
  Trace trace{static_cast<unsigned>(text->front() - '0'), text->substr(2, text->find('\n') - 2)};
  const std::string_view path = trace.path;
  const bool ours = (trace.version == 1 || trace.version == 2) && path.starts_with('/') &&
                    path.find("/..") == std::string_view::npos &&
                    path.substr(path.rfind('/') + 1).starts_with(name_prefix);
  if (!ours) return std::nullopt;
  return trace;
}

Result<> write_limit(const Trace& group, const CpuLimit& limit) {
  const uint64_t quota = limit.cap_percent * period_us / 100;
  if (group.version == 2) {
    const std::string max = limit.cap_percent == 0 ? "max" : std::to_string(quota);
    if (auto ok = put(group.path + "/cpu.max", fmt::format("{} {}", max, period_us)); !ok) return ok;
    return put(group.path + "/cpu.weight", std::to_string(std::clamp(limit.share, 1u, 10000u)));
  }
  if (auto ok = put(group.path + "/cpu.cfs_period_us", std::to_string(period_us)); !ok) return ok;
  if (auto ok = put(group.path + "/cpu.cfs_quota_us", limit.cap_percent == 0 ? "-1" : std::to_string(quota)); !ok)
    return ok;
  const uint64_t shares = uint64_t{1024} * limit.share / control::usual_cpu_share;
  return put(group.path + "/cpu.shares", std::to_string(std::clamp<uint64_t>(shares, 2, 262144)));
}

std::string new_name(const VmFolder& folder) {
  uint64_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number) number = static_cast<uint64_t>(::getpid());
  return fmt::format("{}{}-{:016x}", name_prefix, folder.name(), number);
}

}  // namespace

Result<CpuGroupPlace> find_cpu_groups(std::string_view own, std::string_view mounts, bool systemd) {
  std::optional<std::string_view> second;
  for (const std::string_view line : split(own, '\n')) {
    const size_t first = line.find(':');
    const size_t next = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (next == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, next - first - 1);
    // Each controller is in one hierarchy only.
    if (has_word(controllers, ',', "cpu")) return find_version_1(line.substr(next + 1), mounts);
    if (controllers.empty()) second = line.substr(next + 1);
  }
  if (!second) return fail("this host has no control groups");
  return find_version_2(*second, mounts, systemd);
}

Result<CpuGroupPlace> find_cpu_groups() {
  const auto own = read_file("/proc/self/cgroup", max_proc);
  const auto mounts = read_file("/proc/self/mountinfo", max_proc);
  if (!own || !mounts) return fail("this host has no control groups");
  return find_cpu_groups(*own, *mounts, ::access("/run/systemd/system", F_OK) == 0);  // sd_booted(3)
}

std::string cpu_group(const VmFolder& folder) {
  auto trace = read_trace(folder);
  return trace ? std::move(trace->path) : "";
}

Result<> limit_by_cpu_group(const VmFolder& folder, const CpuGroupPlace& place, pid_t process, const CpuLimit& limit) {
  auto group = read_trace(folder);
  if (!group) {
    group = Trace{place.version, place.path + "/" + new_name(folder)};
    const std::string text = fmt::format("{} {}\n", group->version, group->path);
    if (auto ok = write_file(folder.file(trace_file), text, false); !ok) return ok;
    if (::mkdir(group->path.c_str(), 0755) != 0) {
      auto error = fail_errno(errno, "cannot make " + group->path);
      ::unlink(folder.file(trace_file).c_str());
      return error;
    }
  }
  auto done = write_limit(*group, limit);
  if (done) done = put(group->path + "/cgroup.procs", std::to_string(process));
  // Those that it makes from now on are in the group. One that has ended meanwhile is no error.
  for (const pid_t child : children_of(process)) {
    if (done) (void)put(group->path + "/cgroup.procs", std::to_string(child));
  }
  if (!done) remove_cpu_group(folder, 0);
  return done;
}

Result<> change_cpu_group(const VmFolder& folder, const CpuLimit& limit) {
  const auto group = read_trace(folder);
  if (!group) return fail("machine {}: {} does not name its control group", folder.name(), folder.file(trace_file));
  return write_limit(*group, limit);
}

bool remove_cpu_group(const VmFolder& folder, uint64_t patience_ms) {
  const auto group = read_trace(folder);
  if (!group) return true;
  for (uint64_t waited = 0; ::rmdir(group->path.c_str()) != 0 && errno != ENOENT; waited += 5) {
    if (errno != EBUSY || waited >= patience_ms) return false;
    const timespec moment{0, 5'000'000};
    ::nanosleep(&moment, nullptr);
  }
  ::unlink(folder.file(trace_file).c_str());
  return true;
}

}  // namespace caisson::store
