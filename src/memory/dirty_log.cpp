#include "memory/dirty_log.h"

#include <bit>

#include "base/check.h"

namespace caisson {

void DirtyPages::add_all() {
  for (size_t word = 0; word < (size_ + 63) / 64; ++word) {
    const size_t left = size_ - 64 * word;
    add_word(word, left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1);
  }
}

size_t DirtyPages::count() const {
  size_t count = 0;
  for (size_t word = 0; word < (size_ + 63) / 64; ++word) {
    count += static_cast<size_t>(std::popcount(words_[word].load(std::memory_order_relaxed)));
  }
  return count;
}

void DirtyPages::move_to(DirtyPages& to) {
  CAISSON_CHECK(to.size_ == size_);
  for (size_t word = 0; word < (size_ + 63) / 64; ++word) {
    if (words_[word].load(std::memory_order_relaxed) == 0) continue;
    to.add_word(word, words_[word].exchange(0));
  }
}

Result<std::unique_ptr<DirtyLog>> DirtyLog::start(GuestMemory& memory, GuestWriteLog& guest) {
  std::unique_ptr<DirtyLog> log{new DirtyLog{memory, guest}};
  memory.set_dirty_pages(&log->host_);
  if (auto done = guest.start(); !done) return std::unexpected(done.error());
  return log;
}

DirtyLog::~DirtyLog() {
  guest_.stop();
  memory_.set_dirty_pages(nullptr);
}

Result<> DirtyLog::take(DirtyPages& into) {
  host_.move_to(into);
  return guest_.gather(into);
}

}  // namespace caisson
