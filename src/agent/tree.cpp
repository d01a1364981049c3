#include "agent/tree.h"

#include <array>
#include <cerrno>
#include <memory>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/write_all.h"

namespace caisson::agent {
namespace {

constexpr size_t max_name = 255;
constexpr size_t max_target = 4095;
constexpr uint32_t kept_bits = 0777;
constexpr uint64_t ns_per_second = 1'000'000'000;

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

Directory open_directory(int at, const char* name) {
  const int fd = ::openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  DIR* opened = fd < 0 ? nullptr : ::fdopendir(fd);
  if (fd >= 0 && opened == nullptr) ::close(fd);
  return {opened, ::closedir};
}

uint64_t nanoseconds(const timespec& time) {
  return time.tv_sec < 0 ? 0 : static_cast<uint64_t>(time.tv_sec) * ns_per_second + static_cast<uint64_t>(time.tv_nsec);
}

std::array<timespec, 2> times_of(const TreeEntry& entry) {
  const timespec changed{static_cast<time_t>(entry.changed_ns / ns_per_second),
                         static_cast<long>(entry.changed_ns % ns_per_second)};
  return {timespec{0, UTIME_OMIT}, changed};
}

bool is_dots(std::string_view name) { return name == "." || name == ".."; }

class Sender {
 public:
  explicit Sender(const Sending& sending) : sending_(sending) {}

  uint64_t count(int at, const char* name, size_t depth) {
    struct stat status {};
    if (::fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW) != 0) return 0;
    if (S_ISREG(status.st_mode)) return static_cast<uint64_t>(status.st_size);
    if (!S_ISDIR(status.st_mode) || depth > max_depth) return 0;
    uint64_t bytes = 0;
    const Directory directory = open_directory(at, name);
    while (directory) {
      const dirent* entry = ::readdir(directory.get());
      if (entry == nullptr) break;
      if (!is_dots(entry->d_name)) bytes += count(::dirfd(directory.get()), entry->d_name, depth + 1);
    }
    return bytes;
  }

  // `path`: for messages.
  Result<> send(int at, const char* name, const std::string& path, size_t depth, const std::string& as) {
    struct stat status {};
    if (::fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW) != 0) return fail_errno(errno, "cannot look at " + path);
    TreeEntry entry;
    entry.name = as;
    entry.mode = status.st_mode & kept_bits;
    entry.changed_ns = nanoseconds(status.st_mtim);
    if (S_ISDIR(status.st_mode)) return send_folder(at, name, path, depth, std::move(entry));
    if (S_ISLNK(status.st_mode)) {
      std::array<char, max_target + 1> target;
      const ssize_t size = ::readlinkat(at, name, target.data(), target.size());
      if (size < 0) return fail_errno(errno, "cannot read the link " + path);
      entry.kind = EntryKind::Link;
      entry.target.assign(target.data(), static_cast<size_t>(size));
      return sending_.send(Type::Entry, pack(entry));
    }
    if (S_ISREG(status.st_mode)) return send_file(at, name, path, std::move(entry));
    sending_.left_out(path);
    return {};
  }

 private:
  Result<> send_folder(int at, const char* name, const std::string& path, size_t depth, TreeEntry entry) {
    if (depth >= max_depth) return fail("{}: folders within folders more than {} deep", path, max_depth);
    const Directory directory = open_directory(at, name);
    if (!directory) return fail_errno(errno, "cannot read the folder " + path);
    entry.kind = EntryKind::Folder;
    if (auto done = sending_.send(Type::Entry, pack(entry)); !done) return done;
    for (;;) {
      errno = 0;
      const dirent* found = ::readdir(directory.get());
      if (found == nullptr && errno != 0) return fail_errno(errno, "cannot read the folder " + path);
      if (found == nullptr) break;
      const std::string child = found->d_name;
      if (is_dots(child)) continue;
      if (auto done = send(::dirfd(directory.get()), child.c_str(), path + "/" + child, depth + 1, child); !done)
        return done;
    }
    return sending_.send(Type::Leave, {});
  }

  Result<> send_file(int at, const char* name, const std::string& path, TreeEntry entry) {
    const Fd file{::openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)};
    struct stat status {};
    if (!file.valid() || ::fstat(file.get(), &status) != 0) return fail_errno(errno, "cannot read " + path);
    if (!S_ISREG(status.st_mode)) return fail("{} was something else a moment ago", path);
    entry.size = static_cast<uint64_t>(status.st_size);
    if (auto done = sending_.send(Type::Entry, pack(entry)); !done) return done;
    std::array<char, max_payload> bytes;
    for (uint64_t left = entry.size; left > 0;) {
      const ssize_t size = ::read(file.get(), bytes.data(), std::min<uint64_t>(left, bytes.size()));
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) return fail_errno(errno, "cannot read " + path);
      if (size == 0) return fail("{} became shorter while it was read", path);
      const std::string_view piece{bytes.data(), static_cast<size_t>(size)};
      if (auto done = sending_.send(Type::Data, piece); !done) return done;
      left -= piece.size();
      sending_.moved(piece.size());
    }
    return {};
  }

  const Sending& sending_;
};

}  // namespace

std::string pack(const TreeEntry& entry) {
  return Packer{}
      .number(static_cast<uint64_t>(entry.kind))
      .text(entry.name)
      .number(entry.mode)
      .number(entry.size)
      .number(entry.changed_ns)
      .text(entry.target)
      .take();
}

Result<TreeEntry> unpack_entry(std::string_view payload) {
  Unpacker in{payload};
  TreeEntry entry;
  const uint64_t kind = in.number();
  entry.name = in.text();
  const uint64_t mode = in.number();
  entry.size = in.number();
  entry.changed_ns = in.number();
  entry.target = in.text();
  const bool link = kind == static_cast<uint64_t>(EntryKind::Link);
  if (!in.done() || kind < 1 || kind > 3 || mode > kept_bits || entry.name.empty() || entry.name.size() > max_name ||
      is_dots(entry.name) || entry.name.find('/') != std::string::npos || link == entry.target.empty() ||
      entry.target.size() > max_target || entry.size > INT64_MAX) {
    return fail("the other side named a file in a way that is not allowed");
  }
  entry.kind = static_cast<EntryKind>(kind);
  entry.mode = static_cast<uint32_t>(mode);
  return entry;
}

Result<> send_tree(const std::string& path, bool folders, const Sending& sending) {
  // A link at the end is followed, and "." and ".." have a name, too.
  const std::unique_ptr<char, void (*)(void*)> real{::realpath(path.c_str(), nullptr), std::free};
  if (!real) return fail_errno(errno, "cannot read " + path);
  struct stat status {};
  if (::lstat(real.get(), &status) != 0) return fail_errno(errno, "cannot look at " + path);
  if (S_ISDIR(status.st_mode) && !folders)
    return fail("{} is a folder; add -r to copy it with all that is in it", path);
  if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) return fail("{} is neither a file nor a folder", path);
  const std::string_view whole = real.get();
  const std::string_view given = std::string_view{path}.substr(0, path.find_last_not_of('/') + 1);
  std::string_view name = given.substr(given.rfind('/') == std::string_view::npos ? 0 : given.rfind('/') + 1);
  if (name.empty() || is_dots(name)) name = whole.substr(whole.rfind('/') + 1);
  if (name.empty()) return fail("{}: the root folder has no name; name a folder in it", path);
  Sender sender{sending};
  if (auto done = sending.send(Type::Total, pack(sender.count(AT_FDCWD, real.get(), 0))); !done) return done;
  if (auto done = sender.send(AT_FDCWD, real.get(), path, 0, std::string{name}); !done) return done;
  return sending.send(Type::TreeEnd, {});
}

// --- Receiving ---

Result<TreeReceiver> TreeReceiver::create(const std::string& path) {
  TreeReceiver receiver;
  receiver.top_path_ = path;
  struct stat status {};
  const bool there = ::stat(path.c_str(), &status) == 0;
  if (there && S_ISDIR(status.st_mode)) {
    receiver.top_ = Fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!receiver.top_.valid()) return fail_errno(errno, "cannot open the folder " + path);
    return receiver;
  }
  if (path.ends_with('/')) return fail("there is no folder {}", path);
  std::string target = path;
  if (there) {  // a link is written through
    const std::unique_ptr<char, void (*)(void*)> real{::realpath(path.c_str(), nullptr), std::free};
    if (real) target = real.get();
  }
  const size_t slash = target.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : target.substr(0, slash);
  receiver.as_ = slash == std::string::npos ? target : target.substr(slash + 1);
  if (is_dots(receiver.as_)) return fail("{} is no name for a file", path);
  receiver.top_ = Fd{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!receiver.top_.valid()) return fail_errno(errno, "cannot open the folder " + folder);
  return receiver;
}

TreeReceiver::~TreeReceiver() {
  if (file_.valid()) ::unlinkat(here(), beside_.c_str(), 0);
}

std::string TreeReceiver::where(const TreeEntry& entry) const {
  std::string path = top_path_;
  if (!as_.empty() && folders_.empty()) return path;
  for (const Folder& folder : folders_) {
    if (&folder != &folders_.front() || as_.empty()) path += "/" + folder.entry.name;
  }
  return path + "/" + entry.name;
}

Result<bool> TreeReceiver::take(const Frame& frame) {
  const auto unexpected = [] { return fail("the other side sent files in a way that is not allowed"); };
  switch (frame.type) {
    case Type::Total: {
      auto total = unpack_number(frame.payload);
      if (!total) return std::unexpected(total.error());
      total_ = *total;
      return false;
    }
    case Type::Entry: {
      auto entry = unpack_entry(frame.payload);
      if (!entry) return std::unexpected(entry.error());
      if (file_.valid() || (folders_.empty() && begun_)) return unexpected();
      if (folders_.empty() && !as_.empty()) entry->name = as_;
      begun_ = true;
      Result<> done;
      switch (entry->kind) {
        case EntryKind::File: done = begin_file(std::move(*entry)); break;
        case EntryKind::Folder: done = enter(std::move(*entry)); break;
        case EntryKind::Link: done = link(*entry); break;
      }
      if (!done) return std::unexpected(done.error());
      return false;
    }
    case Type::Data: {
      if (!file_.valid() || frame.payload.size() > left_ || frame.payload.empty()) return unexpected();
      if (const int error = write_all(file_.get(), frame.payload); error != 0) {
        return fail_errno(error, "cannot write " + where(file_entry_));
      }
      left_ -= frame.payload.size();
      moved_ += frame.payload.size();
      if (left_ > 0) return false;
      if (auto done = end_file(); !done) return std::unexpected(done.error());
      return false;
    }
    case Type::Leave: {
      if (folders_.empty() || file_.valid()) return unexpected();
      if (auto done = leave(); !done) return std::unexpected(done.error());
      return false;
    }
    case Type::TreeEnd:
      if (!folders_.empty() || file_.valid() || !begun_) return unexpected();
      return true;
    default: return unexpected();
  }
}

Result<> TreeReceiver::enter(TreeEntry entry) {
  if (folders_.size() >= max_depth)
    return fail("{}: folders within folders more than {} deep", where(entry), max_depth);
  const char* name = entry.name.c_str();
  // Writable for us until everything is in it.
  if (::mkdirat(here(), name, 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "cannot make the folder " + where(entry));
  }
  Fd fd{::openat(here(), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)};
  if (!fd.valid()) {
    if (errno == ENOTDIR || errno == ELOOP) return fail("{} is there already, and is no folder", where(entry));
    return fail_errno(errno, "cannot open the folder " + where(entry));
  }
  folders_.push_back({std::move(fd), std::move(entry)});
  return {};
}

Result<> TreeReceiver::leave() {
  const Folder& folder = folders_.back();
  const auto times = times_of(folder.entry);
  if (::fchmod(folder.fd.get(), folder.entry.mode) != 0 || ::futimens(folder.fd.get(), times.data()) != 0) {
    return fail_errno(errno, "cannot set mode and time of " + top_path_);
  }
  folders_.pop_back();
  return {};
}

Result<> TreeReceiver::begin_file(TreeEntry entry) {
  struct stat status {};
  if (::fstatat(here(), entry.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode)) {
    return fail("{} is there already, and is a folder", where(entry));
  }
  // Beside its name, which it gets when it is complete.
  for (unsigned attempt = 0; attempt < 100; ++attempt) {
    std::string name = fmt::format(".{:.200}.{}.{}", entry.name, ::getpid(), attempt);
    file_ = Fd{::openat(here(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (file_.valid()) {
      beside_ = std::move(name);
      break;
    }
    if (errno != EEXIST) break;
  }
  if (!file_.valid()) return fail_errno(errno, "cannot make " + where(entry));
  left_ = entry.size;
  file_entry_ = std::move(entry);
  return left_ > 0 ? Result<>{} : end_file();
}

Result<> TreeReceiver::end_file() {
  const auto times = times_of(file_entry_);
  if (::fchmod(file_.get(), file_entry_.mode) != 0 || ::futimens(file_.get(), times.data()) != 0 ||
      ::renameat(here(), beside_.c_str(), here(), file_entry_.name.c_str()) != 0) {
    return fail_errno(errno, "cannot finish " + where(file_entry_));
  }
  file_.reset();
  return {};
}

Result<> TreeReceiver::link(const TreeEntry& entry) {
  struct stat status {};
  if (::fstatat(here(), entry.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    if (S_ISDIR(status.st_mode)) return fail("{} is there already, and is a folder", where(entry));
    ::unlinkat(here(), entry.name.c_str(), 0);
  }
  if (::symlinkat(entry.target.c_str(), here(), entry.name.c_str()) != 0) {
    return fail_errno(errno, "cannot make the link " + where(entry));
  }
  const auto times = times_of(entry);
  ::utimensat(here(), entry.name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW);
  return {};
}

}  // namespace caisson::agent
