// How many references each cluster of the file has, and the choice of free ones. [Host cluster management]
//   Memory   the refcount table whole (bounded by the header's checks), blocks by a bounded cache
//   Order    counts change in memory; Image::commit() writes them. New blocks and a larger table are written and
//            synced here at once, before anything on disk names them: a kill leaves clusters unused at worst.
//   Errors   0 or an errno value; `damage` says what is wrong with the image where that is the reason (EIO)
//   Threads  under the image's lock
#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "backend/qcow2/header.h"
#include "backend/qcow2/table_cache.h"

namespace caisson::qcow2 {

class Refcounts {
 public:
  // `metadata`: the clusters (by number) that hold the image's own tables; this class adds its blocks.
  Refcounts(int fd, Header& header, std::unordered_set<uint64_t>& metadata, uint64_t cache_bytes);

  // Reads and checks the table.
  [[nodiscard]] int open();

  [[nodiscard]] int get(uint64_t cluster, uint64_t& count);
  [[nodiscard]] int set(uint64_t cluster, uint64_t count);
  [[nodiscard]] int add(uint64_t cluster, int64_t change);

  // Takes up to `most` adjacent free clusters (at least one) and counts them once.
  [[nodiscard]] int allocate(uint64_t most, uint64_t& first, uint64_t& taken);
  // Takes exactly `count` adjacent ones, at the end of the file.
  [[nodiscard]] int allocate_adjacent(uint64_t count, uint64_t& first);

  // Clusters from this number on were never written.
  [[nodiscard]] uint64_t never_used() const { return never_used_; }
  void used(uint64_t end_cluster) { never_used_ = std::max(never_used_, end_cluster); }

  [[nodiscard]] const std::vector<uint64_t>& table() const { return table_; }
  [[nodiscard]] TableCache& blocks() { return blocks_; }

  std::string damage;

 private:
  [[nodiscard]] int damaged(std::string what);
  [[nodiscard]] int block_for(uint64_t cluster, bool make, Table*& block);
  [[nodiscard]] int make_block(uint64_t index, Table*& block);
  [[nodiscard]] int grow_table(uint64_t index);
  [[nodiscard]] uint64_t count_in(const Table& block, uint64_t index) const;
  void set_in(Table& block, uint64_t index, uint64_t count);

  const int fd_;
  Header& header_;
  std::unordered_set<uint64_t>& metadata_;
  std::vector<uint64_t> table_;  // offsets of blocks; 0: none
  TableCache blocks_;
  uint64_t free_hint_ = 0;  // no free cluster below
  uint64_t never_used_ = 0;
};

}  // namespace caisson::qcow2
