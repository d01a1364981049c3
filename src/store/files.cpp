#include "store/files.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/write_all.h"

namespace caisson {
namespace {

Result<std::string> xdg_folder(const char* variable, const char* below_home) {
  const char* folder = std::getenv(variable);
  if (folder != nullptr && folder[0] == '/') return std::string{folder} + "/caisson";
  const char* home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/') return fail("neither {} nor HOME is set; set HOME", variable);
  return std::string{home} + below_home + "/caisson";
}

// Copies the ranges that hold data. The file system may share the blocks (copy_file_range), else they are read and
// written.
Result<> copy_ranges(int in, int out, off_t size, const std::string& what) {
  off_t at = 0;
  while (at < size) {
    off_t data = ::lseek(in, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) data = at;
    off_t end = ::lseek(in, data, SEEK_HOLE);
    if (end < 0) end = size;
    while (data < end) {
      off_t from = data;
      off_t to = data;
      ssize_t copied = ::copy_file_range(in, &from, out, &to, static_cast<size_t>(end - data), 0);
      if (copied < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)) {
        static thread_local std::array<char, 256 * 1024> buffer;
        const auto want = std::min<size_t>(buffer.size(), static_cast<size_t>(end - data));
        copied = ::pread(in, buffer.data(), want, data);
        ssize_t done = 0;
        while (copied > 0 && done < copied) {
          const ssize_t written = ::pwrite(out, buffer.data() + done, static_cast<size_t>(copied - done), data + done);
          if (written < 0 && errno == EINTR) continue;
          if (written <= 0) return fail_errno(errno, "cannot write " + what);
          done += written;
        }
      }
      if (copied < 0 && errno == EINTR) continue;
      if (copied < 0) return fail_errno(errno, "cannot copy to " + what);
      if (copied == 0) break;
      data += copied;
    }
    at = end;
  }
  return {};
}

}  // namespace

Result<Fd> open_input(std::string_view what, const std::string& path) {
  Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (!fd.valid()) return fail_errno(errno, fmt::format("{} {}: cannot open it", what, path));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, fmt::format("{} {}", what, path));
  if (!S_ISREG(status.st_mode)) return fail("{} {}: not a regular file", what, path);
  if (status.st_size == 0) return fail("{} {}: the file is empty", what, path);
  return fd;
}

Result<std::string> cache_folder() { return xdg_folder("XDG_CACHE_HOME", "/.cache"); }
Result<std::string> config_folder() { return xdg_folder("XDG_CONFIG_HOME", "/.config"); }
Result<std::string> data_folder() { return xdg_folder("XDG_DATA_HOME", "/.local/share"); }

std::vector<std::string> backing_folders(std::vector<std::string> named) {
  if (auto cache = cache_folder()) named.push_back(*cache + "/images");
  return named;
}

Result<> make_folders(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, "cannot make the folder " + part);
    if (end == std::string::npos) break;
  }
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) return fail("{} is not a folder", path);
  return {};
}

Result<std::string> read_file(const std::string& path, size_t most) {
  Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd.valid()) return fail_errno(errno, "cannot open " + path);
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t size = ::read(fd.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail_errno(errno, "cannot read " + path);
    if (size == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(size));
    if (text.size() > most) return fail("{} is larger than {} bytes", path, most);
  }
}

Result<> write_file(const std::string& path, std::string_view text, bool durable) {
  const std::string temporary = path + ".new";
  Fd fd{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
  if (!fd.valid()) return fail_errno(errno, "cannot make " + temporary);
  const auto give_up = [&](std::string_view what) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return fail_errno(error, fmt::format("cannot {} {}", what, path));
  };
  if ((errno = write_all(fd.get(), text)) != 0) return give_up("write");
  if (durable && ::fsync(fd.get()) != 0) return give_up("sync");
  if (::rename(temporary.c_str(), path.c_str()) != 0) return give_up("name");
  if (durable) sync_name(path);
  return {};
}

Result<Fd> unnamed_file() {
  const auto folder = data_folder();
  if (!folder) return std::unexpected(folder.error());
  if (auto ok = make_folders(*folder); !ok) return std::unexpected(ok.error());
  Fd fd{::open(folder->c_str(), O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600)};
  if (!fd.valid()) {  // not every file system can
    std::string name = *folder + "/.unnamed-XXXXXX";
    fd = Fd{::mkostemp(name.data(), O_CLOEXEC)};
    if (fd.valid()) ::unlink(name.c_str());
  }
  if (!fd.valid()) return fail_errno(errno, "cannot make a file in " + *folder);
  return fd;
}

Result<> copy_sparse(const std::string& from, const std::string& to) {
  Fd in{::open(from.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!in.valid()) return fail_errno(errno, "cannot open " + from);
  struct stat status {};
  if (::fstat(in.get(), &status) != 0) return fail_errno(errno, "cannot read " + from);
  const std::string temporary = to + ".new";
  Fd out{::open(temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
  if (!out.valid()) return fail_errno(errno, "cannot make " + temporary);
  Result<> result;
  if (::ioctl(out.get(), FICLONE, in.get()) != 0) {
    if (::ftruncate(out.get(), status.st_size) != 0) {
      result = fail_errno(errno, "cannot make " + to);
    } else {
      result = copy_ranges(in.get(), out.get(), status.st_size, to);
    }
  }
  if (result && ::fsync(out.get()) != 0) result = fail_errno(errno, "cannot sync " + to);
  if (result && ::rename(temporary.c_str(), to.c_str()) != 0) result = fail_errno(errno, "cannot name " + to);
  if (!result) ::unlink(temporary.c_str());
  return result;
}

Result<> sync_path(const std::string& path) {
  Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd.valid() || ::fsync(fd.get()) != 0) return fail_errno(errno, "cannot sync " + path);
  return {};
}

void sync_name(const std::string& path) {
  const auto done = sync_path(path.substr(0, path.rfind('/')));
  if (!done) log::warning("{}; a power cut now could undo the last change", done.error().message);
}

Result<> remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return fail_errno(error.value(), "cannot remove " + path);
  return {};
}

}  // namespace caisson
