// L2 tables or refcount blocks in memory: what was read, and what is changed and not yet written.
//   Bounded  clean tables go, least recently used first, when there are more bytes than `capacity`; changed ones and
//            those that are being written stay. The owner writes changed ones when they become many.
//   Threads  under the image's lock
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "backend/qcow2/layout.h"

namespace caisson::qcow2 {

struct Table {
  uint64_t offset = 0;         // in the file
  std::vector<uint8_t> bytes;  // as on disk; one cluster
  size_t dirty_begin = 0;      // changed bytes [begin, end); none where they are equal
  size_t dirty_end = 0;
  bool fresh = false;       // a new L2 table that the L1 table on disk does not name yet
  bool committing = false;  // being written: must not go
  std::list<Table*>::iterator recent{};

  [[nodiscard]] bool dirty() const { return dirty_begin != dirty_end; }
  [[nodiscard]] uint64_t entry(size_t index) const { return load<uint64_t>(&bytes[index * 8]); }
  void set_entry(size_t index, uint64_t value) {
    store<uint64_t>(&bytes[index * 8], value);
    touch(index * 8, 8);
  }
  void touch(size_t begin, size_t size) {
    dirty_begin = dirty() ? std::min(dirty_begin, begin) : begin;
    dirty_end = std::max(dirty_end, begin + size);
  }
  void clean() { dirty_begin = dirty_end = 0; }
};

class TableCache {
 public:
  TableCache(uint64_t capacity, uint64_t table_bytes) : capacity_(capacity), table_bytes_(table_bytes) {}

  [[nodiscard]] Table* find(uint64_t offset) {
    const auto found = tables_.find(offset);
    if (found == tables_.end()) return nullptr;
    recent_.splice(recent_.begin(), recent_, found->second.recent);
    return &found->second;
  }
  // Replaces what was there. Older clean tables may go; the reference stays valid while the lock is held and no other
  // table is put in.
  Table& put(uint64_t offset, std::vector<uint8_t> bytes) {
    drop(offset);
    while (!recent_.empty() && (tables_.size() + 1) * table_bytes_ > capacity_) {
      auto old = recent_.end();
      bool found = false;
      while (old != recent_.begin() && !found) {
        --old;
        found = !(*old)->dirty() && !(*old)->committing;
      }
      if (!found) break;
      drop((*old)->offset);
    }
    Table& table = tables_[offset];
    table.offset = offset;
    table.bytes = std::move(bytes);
    table.recent = recent_.insert(recent_.begin(), &table);
    return table;
  }
  void drop(uint64_t offset) {
    const auto found = tables_.find(offset);
    if (found == tables_.end()) return;
    recent_.erase(found->second.recent);
    tables_.erase(found);
  }
  template <class Do>
  void for_each(Do&& act) {
    for (auto& [offset, table] : tables_) act(table);
  }
  [[nodiscard]] uint64_t capacity() const { return capacity_; }

 private:
  const uint64_t capacity_;
  const uint64_t table_bytes_;
  std::unordered_map<uint64_t, Table> tables_;
  std::list<Table*> recent_;
};

}  // namespace caisson::qcow2
