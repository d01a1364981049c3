#include "life/new_file.h"

#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

#include "store/files.h"

namespace caisson::life {

Result<NewFile> NewFile::make(const std::string& path, bool force) {
  if (!force && ::access(path.c_str(), F_OK) == 0) {
    return fail("{} exists already; give another name, or --force to replace it", path);
  }
  NewFile file;
  file.path_ = path;
  file.temporary_ = path + ".new";
  file.fd_ = Fd{::open(file.temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644)};
  if (!file.fd_.valid()) {
    const int error = errno;
    const std::string wanted = std::exchange(file.temporary_, {});  // another's: it stays
    if (error == EEXIST) return fail("{} exists, from a command that runs or was broken off; remove it", wanted);
    return fail_errno(error, "cannot make " + wanted);
  }
  return file;
}

NewFile::~NewFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<> NewFile::finish() {
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return fail_errno(errno, "cannot name " + path_);
  temporary_.clear();
  const auto slash = path_.rfind('/');
  return sync_path(slash == std::string::npos ? "." : path_.substr(0, slash + 1));
}

}  // namespace caisson::life
