// Finds blocks by key without a lock: an open hash table of pointers, of fixed size.
//   Threads  find() by any, at any time but during clear(); the rest by the holder of the code lock
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "base/check.h"

namespace caisson::jit {

// Block: has a member `key` (gpa, rip, mode) that never changes while the block can be found.
template <class Block, class Key>
class BlockIndex {
 public:
  static constexpr size_t slots = size_t{1} << 19;
  static constexpr size_t most_blocks = slots / 2;

  // Zeroed memory from the operating system is not touched before it is used.
  BlockIndex() : table_(static_cast<std::atomic<Block*>*>(std::calloc(slots, sizeof(std::atomic<Block*>))), std::free) {
    CAISSON_CHECK(table_ != nullptr);
  }

  [[nodiscard]] static size_t hash(const Key& key) {
    uint64_t hash = key.gpa ^ key.rip * 0x9e37'79b9'7f4a'7c15 ^ key.mode * 0xc2b2'ae3d'27d4'eb4f;
    hash ^= hash >> 29;
    return hash * 0xff51'afd7'ed55'8ccd >> 32;
  }

  [[nodiscard]] bool full() const { return used_ >= most_blocks; }

  [[nodiscard]] Block* find(const Key& key) const {
    for (size_t at = hash(key);; ++at) {
      Block* block = table_.get()[at % slots].load(std::memory_order_acquire);
      if (block == nullptr) return nullptr;
      if (block != gone() && block->key == key) return block;
    }
  }
  void insert(Block* block) {
    for (size_t at = hash(block->key);; ++at) {
      std::atomic<Block*>& slot = table_.get()[at % slots];
      Block* there = slot.load(std::memory_order_relaxed);
      if (there != nullptr && there != gone()) continue;
      if (there == nullptr) ++used_;
      slot.store(block, std::memory_order_release);
      return;
    }
  }
  void erase(const Block* block) {
    for (size_t at = hash(block->key);; ++at) {
      std::atomic<Block*>& slot = table_.get()[at % slots];
      Block* there = slot.load(std::memory_order_relaxed);
      if (there == nullptr) return;
      if (there != block) continue;
      slot.store(gone(), std::memory_order_release);
      return;
    }
  }
  void clear() {
    if (used_ == 0) return;
    for (size_t i = 0; i < slots; ++i) table_.get()[i].store(nullptr, std::memory_order_relaxed);
    used_ = 0;
  }

 private:
  static Block* gone() { return reinterpret_cast<Block*>(1); }

  std::unique_ptr<std::atomic<Block*>, void (*)(void*)> table_;
  size_t used_ = 0;  // slots that are not null
};

}  // namespace caisson::jit
