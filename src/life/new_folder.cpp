#include "life/new_folder.h"

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "store/files.h"

namespace caisson::life {
namespace {

constexpr std::string_view ending = ".import";

}  // namespace

Result<NewFolder> NewFolder::make(const ImageName& name) {
  auto images = images_folder();
  if (!images) return std::unexpected(images.error());
  NewFolder folder;
  folder.path_ = *images + "/" + name.folder();
  const std::string temporary = *images + "/." + name.folder() + std::string{ending};
  if (auto ok = remove_tree(temporary); !ok) return std::unexpected(ok.error());
  if (::mkdir(temporary.c_str(), 0700) != 0) return fail_errno(errno, "cannot make " + temporary);
  folder.temporary_ = temporary;
  return folder;
}

NewFolder::NewFolder(NewFolder&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::exchange(other.temporary_, {})) {}

NewFolder::~NewFolder() {
  if (!temporary_.empty()) (void)remove_tree(temporary_);
}

Result<std::string> NewFolder::finish() {
  std::error_code error;
  std::filesystem::directory_iterator entry{temporary_, error};
  for (; !error && entry != std::filesystem::directory_iterator{}; entry.increment(error)) {
    if (auto ok = sync_path(entry->path().string()); !ok) return std::unexpected(ok.error());
  }
  if (auto ok = sync_path(temporary_); !ok) return std::unexpected(ok.error());
  // Of what was there and what is new there is one at every moment.
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0) {
    (void)remove_tree(std::exchange(temporary_, {}));
  } else {
    if (errno != ENOENT) return fail_errno(errno, "cannot replace " + path_);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) return fail_errno(errno, "cannot name " + path_);
    temporary_.clear();
  }
  sync_name(path_);
  return path_;
}

void sweep_new_folders() {
  const auto images = images_folder();
  if (!images) return;
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry{*images, error};
  for (; !error && entry != std::filesystem::directory_iterator{}; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with('.') || !name.ends_with(ending)) continue;
    names.push_back(name.substr(1, name.size() - 1 - ending.size()));
  }
  for (const std::string& name : names) {
    const auto lock = lock_file(*images + "/" + name + ".lock", name, nullptr);
    if (lock) (void)remove_tree(*images + "/." + name + std::string{ending});
  }
}

}  // namespace caisson::life
