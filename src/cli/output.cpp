#include "cli/output.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace caisson::cli {

Output::Output(int fd) : fd_(fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    broken_ = true;
    return;
  }
  if (S_ISSOCK(status.st_mode)) {
    kind_ = Kind::Socket;
  } else if (S_ISREG(status.st_mode)) {
    kind_ = Kind::File;
  } else if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) {
    own_ = Fd{::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)};
    if (own_.valid()) {
      kind_ = Kind::NonBlocking;
      fd_ = own_.get();
    }
  }
}

void Output::put(std::string_view bytes) {
  if (bytes.empty()) return;
  last_ = bytes.back();
  if (!broken_) pending_.append(bytes);
}

ssize_t Output::write_some(std::string_view bytes) {
  switch (kind_) {
    case Kind::NonBlocking: return ::write(fd_, bytes.data(), bytes.size());
    case Kind::Socket: return ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    case Kind::File: return ::write(fd_, bytes.data(), bytes.size());
    case Kind::Blocking: break;
  }
  // Only when it says that it has room, and little at a time.
  pollfd ready{fd_, POLLOUT, 0};
  if (::poll(&ready, 1, 0) == 0) {
    errno = EAGAIN;
    return -1;
  }
  return ::write(fd_, bytes.data(), std::min<size_t>(bytes.size(), 512));
}

void Output::flush() {
  while (!empty()) {
    const ssize_t written = write_some(std::string_view{pending_}.substr(start_));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) break;
    if (written < 0) {
      broken_ = true;
      start_ = pending_.size();
      break;
    }
    start_ += static_cast<size_t>(written);
  }
  if (empty()) {
    pending_.clear();
    start_ = 0;
  } else if (start_ > capacity / 2) {
    pending_.erase(0, start_);
    start_ = 0;
  }
}

}  // namespace caisson::cli
