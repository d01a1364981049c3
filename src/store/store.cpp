#include "store/store.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "store/cpu_group.h"
#include "store/files.h"

namespace caisson::store {
namespace {

constexpr std::string_view new_prefix = ".new-";
constexpr std::string_view gone_prefix = ".gone-";

std::string hidden_name(std::string_view prefix, std::string_view name) {
  static std::atomic<unsigned> count = 0;
  return fmt::format("{}{}.{}.{}", prefix, name, ::getpid(), ++count);
}

}  // namespace

Result<Store> Store::open() {
  auto data = data_folder();
  if (!data) return std::unexpected(data.error());
  return open_at(*data + "/vms");
}

Result<Store> Store::open_at(std::string path) {
  if (auto ok = make_folders(path); !ok) return std::unexpected(ok.error());
  return Store{std::move(path)};
}

Result<std::vector<std::string>> Store::names() const {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry{path_, error}, end; !error && entry != end; entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (!check_name("", name)) continue;
    // A folder without a configuration: of a version that kept none, or nothing of ours.
    if (::access((path_ + "/" + name + "/" + VmFolder::config_file).c_str(), F_OK) == 0)
      names.push_back(std::move(name));
  }
  if (error) return fail("cannot read {}: {}", path_, error.message());
  std::ranges::sort(names);
  return names;
}

bool Store::has(std::string_view name) const {
  return check_name("", name) && ::access(fmt::format("{}/{}", path_, name).c_str(), F_OK) == 0;
}

Result<VmFolder> Store::find(std::string_view name) const {
  if (auto ok = check_name("machine", name); !ok) return std::unexpected(ok.error());
  std::string path = fmt::format("{}/{}", path_, name);
  if (::access((path + "/" + VmFolder::config_file).c_str(), F_OK) != 0) {
    if (errno == ENOENT) return fail("there is no machine {}; caisson ps -a lists those that there are", name);
    return fail_errno(errno, fmt::format("machine {}: {}", name, path));
  }
  return VmFolder::open(std::move(path), std::string{name});
}

Result<Store::Draft> Store::begin(std::string_view name) const {
  if (auto ok = check_name("machine", name); !ok) return std::unexpected(ok.error());
  sweep();
  for (unsigned tries = 0;; ++tries) {
    const std::string path = path_ + "/" + hidden_name(new_prefix, name);
    if (::mkdir(path.c_str(), 0700) != 0) return fail_errno(errno, "cannot make the folder " + path);
    auto folder = VmFolder::open(path, std::string{name});
    auto lock = folder ? folder->lock() : Result<Fd>{std::unexpected(folder.error())};
    if (lock) return Draft{std::move(*folder), std::move(*lock)};
    // Another command's sweep may have taken it for a dead one's before it was locked.
    if (tries == 3) return std::unexpected(lock.error());
  }
}

void Store::give_up(Draft draft) const { (void)remove_tree(draft.folder.path()); }

Result<Store::Draft> Store::finish(Draft draft, const VmSpec& spec) const {
  const std::string name = draft.folder.name();
  const std::string path = path_ + "/" + name;
  auto done = draft.folder.save(spec);
  if (done && !spec.transient) done = sync_path(draft.folder.path());
  if (done && ::renameat2(AT_FDCWD, draft.folder.path().c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST) {
      done = fail("there is a machine {} already; choose another name, or remove it with: caisson rm {}", name, name);
    } else {
      done = fail_errno(errno, "cannot make " + path);
    }
  }
  if (!done) {
    give_up(std::move(draft));
    return std::unexpected(done.error());
  }
  if (!spec.transient) sync_name(path);
  auto folder = VmFolder::open(path, name);
  if (!folder) return std::unexpected(folder.error());
  return Draft{std::move(*folder), std::move(draft.lock)};
}

Result<> Store::remove(const VmFolder& folder, const Fd& lock) const {
  CAISSON_CHECK(lock.valid());
  // Nobody would find it later.
  if (!remove_cpu_group(folder, 1000)) log::warning("cannot remove the control group {}", cpu_group(folder));
  const std::string doomed = path_ + "/" + hidden_name(gone_prefix, folder.name());
  if (::rename(folder.path().c_str(), doomed.c_str()) != 0) return fail_errno(errno, "cannot remove " + folder.path());
  // It is gone; what is left of it, because somebody made a file there meanwhile, goes with the next sweep.
  if (!remove_tree(doomed)) {
    if (auto again = remove_tree(doomed); !again) log::warning("{}; caisson ps tries again", again.error().message);
  }
  return {};
}

Result<> Store::rename(const VmFolder& folder, const Fd& lock, std::string_view to) const {
  CAISSON_CHECK(lock.valid());
  if (auto ok = check_name("machine", to); !ok) return ok;
  const std::string path = fmt::format("{}/{}", path_, to);
  if (::renameat2(AT_FDCWD, folder.path().c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST) return fail("there is a machine {} already; choose another name", to);
    return fail_errno(errno, "cannot rename " + folder.path());
  }
  sync_name(path);
  return {};
}

void Store::sweep() const {
  std::error_code error;
  for (std::filesystem::directory_iterator entry{path_, error}, end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(new_prefix) || name.starts_with(gone_prefix)) {
      auto folder = VmFolder::open(entry->path().string(), name);
      if (!folder) continue;
      const auto lock = folder->try_lock();
      if (lock && *lock) (void)remove_tree(folder->path());
      continue;
    }
    auto folder = find(name);
    if (!folder || folder->alive()) continue;
    if (!cpu_group(*folder).empty()) {
      const auto lock = folder->try_lock();
      if (lock && *lock && !folder->alive()) remove_cpu_group(*folder, 0);
    }
    const auto spec = folder->spec();
    if (!spec || !spec->transient) continue;
    const auto lock = folder->try_lock();
    if (lock && *lock && !folder->alive()) (void)remove(*folder, **lock);
  }
}

}  // namespace caisson::store
