// What a trial run of the interpreter has written to RAM, so that it can be taken back and, once the translator has
// done the same, compared. See lockstep.h.
//   Threads  the vCPU's own
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace caisson::jit {

class TrialLog {
 public:
  struct Write {
    uint8_t* host;  // with some bytes before and behind what is written
    uint32_t size;
    bool by_walk;    // accessed and dirty bits: translation caches decide when, so they are not compared
    uint32_t bytes;  // where in bytes_: what was there before, then (after settle()) what came
  };

  void clear() {
    writes_.clear();
    bytes_.clear();
    settled_ = 0;
  }
  // Before the interpreter writes there; it need not write all of it.
  void note(uint8_t* host, uint32_t size, bool by_walk = false) {
    // A translation that writes more than it should must show as well.
    const uintptr_t margin = by_walk ? 0 : 16;
    constexpr uintptr_t page = 4096;
    const auto from = reinterpret_cast<uintptr_t>(host), to = from + size;
    const uintptr_t before = from % page < margin ? from % page : margin;
    const uintptr_t behind = page - (to - 1) % page - 1 < margin ? page - (to - 1) % page - 1 : margin;
    host -= before;
    size += static_cast<uint32_t>(before + behind);
    writes_.push_back({host, size, by_walk, static_cast<uint32_t>(bytes_.size())});
    bytes_.insert(bytes_.end(), host, host + size);
    bytes_.resize(bytes_.size() + size);
  }
  // Takes down what stands there now, after each instruction.
  void settle() {
    for (; settled_ < writes_.size(); ++settled_) {
      const Write& write = writes_[settled_];
      std::memcpy(bytes_.data() + write.bytes + write.size, write.host, write.size);
    }
  }
  // Memory as it was before the write number `first`: the bytes that were changed, no others.
  void undo(size_t first = 0) {
    settle();
    for (size_t i = writes_.size(); i-- > first;) {
      const Write& write = writes_[i];
      for (uint32_t at = 0; at < write.size; ++at) {
        if (before(write)[at] != after(write)[at]) write.host[at] = before(write)[at];
      }
    }
  }
  // Bytes around what was written that are not as they were.
  struct Foreign {
    uint8_t* byte;
    uint8_t before, found;
  };
  // After undo(): puts them back as well, and says which those are.
  [[nodiscard]] std::vector<Foreign> restore_margins() {
    std::vector<Foreign> all;
    for (const Write& write : writes_) {
      for (uint32_t at = 0; at < write.size && !write.by_walk; ++at) {
        uint8_t* byte = write.host + at;
        if (*byte == before(write)[at]) continue;
        // Only the first write that covers it knows how it was.
        const auto covers = [&](const Write& one) { return byte >= one.host && byte < one.host + one.size; };
        if (&*std::find_if(writes_.begin(), writes_.end(), covers) != &write) continue;
        all.push_back({byte, before(write)[at], *byte});
        *byte = before(write)[at];
      }
    }
    return all;
  }
  // Forgets the writes from number `first` on.
  void shorten(size_t first) {
    if (first >= writes_.size()) return;
    bytes_.resize(writes_[first].bytes);
    writes_.resize(first);
    settled_ = writes_.size();
  }

  // The first byte of write number `index` that memory does not hold, or its size: nothing differs. What other ones of
  // the first `count` say later, or what a walk changed, does not.
  [[nodiscard]] uint32_t difference(size_t index, size_t count) const {
    const Write& write = writes_[index];
    if (write.by_walk || std::memcmp(write.host, after(write), write.size) == 0) return write.size;
    for (uint32_t at = 0; at < write.size; ++at) {
      if (write.host[at] == after(write)[at]) continue;
      const uint8_t* byte = write.host + at;
      bool excused = false;
      for (size_t i = 0; i < count && !excused; ++i) {
        const Write& other = writes_[i];
        excused = (other.by_walk || i > index) && byte >= other.host && byte < other.host + other.size;
      }
      if (!excused) return at;
    }
    return write.size;
  }

  // A page walk has set accessed or dirty bits.
  [[nodiscard]] bool walked() const {
    return std::any_of(writes_.begin(), writes_.end(), [](const Write& write) { return write.by_walk; });
  }
  [[nodiscard]] size_t size_in_bytes() const { return bytes_.size(); }
  [[nodiscard]] const std::vector<Write>& writes() const { return writes_; }
  [[nodiscard]] const uint8_t* before(const Write& write) const { return bytes_.data() + write.bytes; }
  [[nodiscard]] const uint8_t* after(const Write& write) const { return bytes_.data() + write.bytes + write.size; }

 private:
  std::vector<Write> writes_;
  std::vector<uint8_t> bytes_;
  size_t settled_ = 0;
};

}  // namespace caisson::jit
