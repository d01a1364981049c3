#include "machine/console_log.h"

#include <cerrno>
#include <cstring>

#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

namespace caisson::machine {
namespace {

constexpr uint64_t gather_ns = 100'000'000;
constexpr size_t gather_bytes = 4096;

// False when the file takes no more.
bool write_at(int fd, std::string_view bytes, uint64_t at) {
  while (!bytes.empty()) {
    const ssize_t size = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(size));
    at += static_cast<uint64_t>(size);
  }
  return true;
}

// What there is of `size` bytes from `at` on.
std::string read_at(int fd, size_t size, uint64_t at) {
  std::string text(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t part = ::pread(fd, text.data() + done, size - done, static_cast<off_t>(at + done));
    if (part < 0 && errno == EINTR) continue;
    if (part <= 0) break;
    done += static_cast<size_t>(part);
  }
  text.resize(done);
  return text;
}

uint64_t size_of(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
}

}  // namespace

ConsoleLog::ConsoleLog(EventLoop& loop, Fd newer, Fd older, uint64_t most)
    : newer_(std::move(newer)),
      older_(std::move(older)),
      most_(most),
      size_(size_of(newer_.get())),
      soon_(loop.create_timer([this] { flush(); })) {}

ConsoleLog::~ConsoleLog() { flush(); }

void ConsoleLog::write(std::span<const uint8_t> bytes) {
  if (pending_.empty() && !bytes.empty()) soon_->arm(EventLoop::now_ns() + gather_ns);
  pending_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (pending_.size() >= gather_bytes) flush();
}

void ConsoleLog::flush() {
  if (pending_.empty()) return;
  if (size_ + pending_.size() > most_) turn_over();
  if (write_at(newer_.get(), pending_, size_)) {
    size_ += pending_.size();
  } else {
    // A full disk may have room again later.
    if (!warned_)
      log::warning("the log of the console cannot be written: {}; what is printed is lost", std::strerror(errno));
    warned_ = true;
  }
  pending_.clear();
  soon_->cancel();
}

void ConsoleLog::turn_over() {
  const std::string all = read_at(newer_.get(), size_, 0);
  // In this order a reader, and an end of this process in between, finds bytes twice rather than not at all.
  if (::ftruncate(older_.get(), 0) == 0 && write_at(older_.get(), all, 0) && ::ftruncate(newer_.get(), 0) == 0)
    size_ = 0;
}

std::string ConsoleLog::last(size_t most) {
  flush();
  const size_t from_newer = std::min<uint64_t>(most, size_);
  std::string text = read_at(newer_.get(), from_newer, size_ - from_newer);
  if (text.size() < most) {
    const uint64_t old_size = size_of(older_.get());
    const size_t from_older = std::min<uint64_t>(most - text.size(), old_size);
    text = read_at(older_.get(), from_older, old_size - from_older) + text;
  }
  return text;
}

}  // namespace caisson::machine
