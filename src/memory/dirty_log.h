// The dirty log: which pages of guest memory were written since it was last asked, by whomever: the guest (an engine's
// GuestWriteLog), devices and loaders (GuestMemory::written()).
//   Use      take() the pages, then copy their content: what is written while they are copied is in the next take()
//   Threads  DirtyPages::add() any; the rest by one thread, without the device lock; CPUs may run
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace caisson {

// A set of pages, by GuestMemory::page_index().
class DirtyPages {
 public:
  explicit DirtyPages(size_t pages)
      : words_(std::make_unique<std::atomic<uint64_t>[]>((pages + 63) / 64)), size_(pages) {}

  [[nodiscard]] size_t size() const { return size_; }  // pages that there are, in the set or not
  void add(size_t page) { add_word(page / 64, uint64_t{1} << page % 64); }
  // 64 pages at once: bit i is page 64 × `word` + i.
  void add_word(size_t word, uint64_t bits) {
    if ((words_[word].load(std::memory_order_relaxed) & bits) != bits) words_[word].fetch_or(bits);
  }
  void add_all();
  [[nodiscard]] bool contains(size_t page) const { return (words_[page / 64].load() >> page % 64 & 1) != 0; }
  [[nodiscard]] size_t count() const;
  // Moves everything into `to`, which has the same size.
  void move_to(DirtyPages& to);

 private:
  std::unique_ptr<std::atomic<uint64_t>[]> words_;
  size_t size_;
};

// What an engine knows of the guest's own writes.
class GuestWriteLog {
 public:
  virtual ~GuestWriteLog() = default;
  // Log from here on; an error names cause and remedy.
  [[nodiscard]] virtual Result<> start() = 0;
  virtual void stop() = 0;
  // Adds what was written since start() or the last gather(), perhaps more. What a CPU writes while this runs is added
  // now or the next time; for a full answer no CPU runs.
  [[nodiscard]] virtual Result<> gather(DirtyPages& into) = 0;
};

class DirtyLog {
 public:
  // `memory` and `guest` outlive it. One at a time.
  [[nodiscard]] static Result<std::unique_ptr<DirtyLog>> start(GuestMemory& memory, GuestWriteLog& guest);
  ~DirtyLog();
  DirtyLog(const DirtyLog&) = delete;
  DirtyLog& operator=(const DirtyLog&) = delete;

  // Adds the pages written since start() or the last take() to `into`.
  [[nodiscard]] Result<> take(DirtyPages& into);

 private:
  DirtyLog(GuestMemory& memory, GuestWriteLog& guest)
      : memory_(memory), guest_(guest), host_(memory.size() / page_size) {}

  GuestMemory& memory_;
  GuestWriteLog& guest_;
  DirtyPages host_;  // by devices and loaders
};

}  // namespace caisson
