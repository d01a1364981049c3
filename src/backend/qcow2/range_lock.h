// Locks on ranges of guest clusters: reads and writes in place share one, whatever changes where a cluster is has it
// alone. First come, first served: who waits is not overtaken by later ones that overlap.
//   Threads  any; a Held may be dropped by another thread than took it
#pragma once

#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <utility>

namespace caisson::qcow2 {

class RangeLock {
  struct Entry {
    uint64_t first;
    uint64_t last;
    bool exclusive;
  };

 public:
  class Held {
   public:
    Held(Held&& other) noexcept : lock_(std::exchange(other.lock_, nullptr)), entry_(other.entry_) {}
    Held& operator=(Held&&) = delete;
    ~Held() {
      if (lock_ != nullptr) lock_->release(entry_);
    }

   private:
    friend RangeLock;
    Held(RangeLock& lock, std::list<Entry>::iterator entry) : lock_(&lock), entry_(entry) {}
    RangeLock* lock_;
    std::list<Entry>::iterator entry_;
  };

  // Both ends belong to the range.
  [[nodiscard]] Held take(uint64_t first, uint64_t last, bool exclusive);
  [[nodiscard]] std::optional<Held> try_take(uint64_t first, uint64_t last, bool exclusive);

 private:
  [[nodiscard]] std::list<Entry>::iterator add(uint64_t first, uint64_t last, bool exclusive);
  void remove(std::list<Entry>::iterator entry);
  [[nodiscard]] bool blocked(std::list<Entry>::const_iterator entry) const;
  void release(std::list<Entry>::iterator entry);

  std::mutex mutex_;
  std::condition_variable released_;
  std::list<Entry> entries_;  // in the order in which they came
  std::list<Entry> spare_;    // their memory, for the next ones
  size_t waiting_ = 0;
};

}  // namespace caisson::qcow2
