#include "backend/qcow2/refcounts.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include <fmt/core.h>

#include "backend/qcow2/file_io.h"
#include "backend/qcow2/refcount_bits.h"

namespace caisson::qcow2 {

Refcounts::Refcounts(int fd, Header& header, std::unordered_set<uint64_t>& metadata, uint64_t cache_bytes)
    : fd_(fd), header_(header), metadata_(metadata), blocks_(cache_bytes, header.cluster_size()) {}

int Refcounts::damaged(std::string what) {
  if (damage.empty()) damage = std::move(what);
  return EIO;
}

int Refcounts::open() {
  const uint64_t cluster_size = header_.cluster_size();
  std::vector<uint8_t> bytes(header_.refcount_table_clusters * cluster_size);
  if (const int error = read_at(fd_, header_.refcount_table_offset, bytes)) return error;
  uint64_t size = 0;
  if (const int error = file_size(fd_, size)) return error;
  never_used_ = divide_up(size, cluster_size);
  table_.resize(bytes.size() / 8);
  for (size_t i = 0; i < table_.size(); ++i) {
    const uint64_t entry = load<uint64_t>(&bytes[i * 8]) & ~uint64_t{511};  // the low nine bits are reserved
    if (entry == 0) continue;
    if (entry % cluster_size != 0 || entry > max_host_offset || entry >= size) {
      return damaged(fmt::format("refcount block {} would be at byte {}", i, entry));
    }
    if (!metadata_.insert(entry >> header_.cluster_bits).second) {
      return damaged(fmt::format("refcount block {} at byte {} lies over another table", i, entry));
    }
    table_[i] = entry;
  }
  return 0;
}

uint64_t Refcounts::count_in(const Table& block, uint64_t index) const {
  return get_refcount(block.bytes, header_.refcount_order, index);
}

void Refcounts::set_in(Table& block, uint64_t index, uint64_t count) {
  set_refcount(block.bytes, header_.refcount_order, index, count);
  block.touch((index << header_.refcount_order) / 8, std::max<size_t>((size_t{1} << header_.refcount_order) / 8, 1));
}

// The block that counts `cluster`; none where there is none and `make` is false.
int Refcounts::block_for(uint64_t cluster, bool make, Table*& block) {
  block = nullptr;
  const uint64_t index = cluster / header_.refcounts_per_block();
  if (index >= table_.size()) {
    if (!make) return 0;
    if (const int error = grow_table(index)) return error;
  }
  const uint64_t offset = table_[index];
  if (offset == 0) return make ? make_block(index, block) : 0;
  block = blocks_.find(offset);
  if (block != nullptr) return 0;
  std::vector<uint8_t> bytes(header_.cluster_size());
  if (const int error = read_at(fd_, offset, bytes)) return error;
  block = &blocks_.put(offset, std::move(bytes));
  return 0;
}

// A block takes the first cluster of those that it counts: none of them is in use.
int Refcounts::make_block(uint64_t index, Table*& block) {
  const uint64_t cluster = index * header_.refcounts_per_block();
  const uint64_t offset = cluster << header_.cluster_bits;
  if (metadata_.contains(cluster)) return damaged(fmt::format("the table at byte {} is not counted", offset));
  std::vector<uint8_t> bytes(header_.cluster_size());
  block = &blocks_.put(offset, std::move(bytes));
  set_in(*block, 0, 1);
  int error = write_at(fd_, offset, block->bytes);
  if (error == 0) error = sync_data(fd_);
  std::array<uint8_t, 8> entry{};
  store<uint64_t>(entry.data(), offset);
  if (error == 0) error = write_at(fd_, header_.refcount_table_offset + index * 8, entry);
  block->clean();
  if (error != 0) {
    blocks_.drop(offset);
    return error;
  }
  table_[index] = offset;
  metadata_.insert(cluster);
  used(cluster + 1);
  return 0;
}

// A larger table, with the blocks that count it, at the end of the file; then the header names it.
int Refcounts::grow_table(uint64_t index) {
  const uint64_t cluster_size = header_.cluster_size(), per_block = header_.refcounts_per_block();
  const uint64_t start = std::max(never_used_, table_.size() * per_block);
  uint64_t table_clusters = 0, blocks = 0;
  for (;;) {
    const uint64_t end = start + table_clusters + blocks;
    const uint64_t entries = std::max({index + 1, divide_up(end, per_block), table_.size() * 3 / 2});
    const uint64_t clusters_needed = divide_up(entries * 8, cluster_size);
    const uint64_t blocks_needed = divide_up(start + clusters_needed + blocks, per_block) - start / per_block;
    if (clusters_needed <= table_clusters && blocks_needed <= blocks) break;
    table_clusters = std::max(table_clusters, clusters_needed);
    blocks = std::max(blocks, blocks_needed);
  }
  if (table_clusters * cluster_size > max_refcount_table_bytes) return EFBIG;
  const uint64_t end = start + table_clusters + blocks;
  std::vector<uint64_t> table = table_;
  table.resize(table_clusters * cluster_size / 8);
  std::vector<uint8_t> bytes(blocks * cluster_size);
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t number = start / per_block + i;
    Table block{.bytes = std::vector<uint8_t>(cluster_size)};
    for (uint64_t cluster = std::max(start, number * per_block); cluster < std::min(end, (number + 1) * per_block);
         ++cluster) {
      set_in(block, cluster % per_block, 1);
    }
    std::ranges::copy(block.bytes, &bytes[i * cluster_size]);
    table[number] = (start + table_clusters + i) << header_.cluster_bits;
  }
  std::vector<uint8_t> table_bytes(table.size() * 8);
  for (size_t i = 0; i < table.size(); ++i) store<uint64_t>(&table_bytes[i * 8], table[i]);
  const uint64_t offset = start << header_.cluster_bits;
  if (const int error = write_at(fd_, offset, table_bytes)) return error;
  if (const int error = write_at(fd_, offset + table_bytes.size(), bytes)) return error;
  if (const int error = sync_data(fd_)) return error;
  std::array<uint8_t, 12> place{};
  store<uint64_t>(place.data(), offset);
  store<uint32_t>(&place[8], static_cast<uint32_t>(table_clusters));
  if (const int error = write_at(fd_, at::refcount_table, place)) return error;
  if (const int error = sync_data(fd_)) return error;

  const uint64_t old_first = header_.refcount_table_offset >> header_.cluster_bits,
                 old_clusters = header_.refcount_table_clusters;
  header_.refcount_table_offset = offset;
  header_.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
  table_ = std::move(table);
  for (uint64_t cluster = start; cluster < end; ++cluster) metadata_.insert(cluster);
  used(end);
  for (uint64_t i = 0; i < old_clusters; ++i) {
    metadata_.erase(old_first + i);
    if (const int error = add(old_first + i, -1)) return error;
  }
  return 0;
}

int Refcounts::get(uint64_t cluster, uint64_t& count) {
  Table* block = nullptr;
  if (const int error = block_for(cluster, false, block)) return error;
  count = block == nullptr ? 0 : count_in(*block, cluster % header_.refcounts_per_block());
  return 0;
}

int Refcounts::set(uint64_t cluster, uint64_t count) {
  if (count > header_.max_refcount()) return damaged(fmt::format("cluster {} has too many references", cluster));
  Table* block = nullptr;
  if (const int error = block_for(cluster, true, block)) return error;
  set_in(*block, cluster % header_.refcounts_per_block(), count);
  if (count == 0) free_hint_ = std::min(free_hint_, cluster);
  return 0;
}

int Refcounts::add(uint64_t cluster, int64_t change) {
  uint64_t count = 0;
  if (const int error = get(cluster, count)) return error;
  if (change < 0 && count < static_cast<uint64_t>(-change)) {
    return damaged(fmt::format("the cluster at byte {} is in use but not counted", cluster << header_.cluster_bits));
  }
  return set(cluster, count + static_cast<uint64_t>(change));
}

int Refcounts::allocate(uint64_t most, uint64_t& first, uint64_t& taken) {
  const uint64_t per_block = header_.refcounts_per_block();
  for (uint64_t cluster = free_hint_;;) {
    if (cluster >= max_host_offset >> header_.cluster_bits) return EFBIG;
    Table* block = nullptr;
    if (const int error = block_for(cluster, true, block)) return error;
    const uint64_t base = cluster - cluster % per_block;
    uint64_t index = cluster - base;
    while (index < per_block && count_in(*block, index) != 0) ++index;
    if (index == per_block) {
      cluster = base + per_block;
      free_hint_ = cluster;
      continue;
    }
    first = base + index;
    taken = 0;
    while (taken < most && index + taken < per_block && count_in(*block, index + taken) == 0) {
      if (metadata_.contains(first + taken)) {
        return damaged(fmt::format("the table at byte {} is not counted", (first + taken) << header_.cluster_bits));
      }
      set_in(*block, index + taken, 1);
      ++taken;
    }
    free_hint_ = first + taken;
    return 0;
  }
}

int Refcounts::allocate_adjacent(uint64_t count, uint64_t& first) {
  first = never_used_;
  for (uint64_t have = 0; have < count;) {
    const uint64_t cluster = first + have;
    if (cluster >= max_host_offset >> header_.cluster_bits) return EFBIG;
    uint64_t references = 0;
    Table* block = nullptr;
    if (const int error = block_for(cluster, true, block)) return error;
    references = count_in(*block, cluster % header_.refcounts_per_block());
    if (references != 0 || metadata_.contains(cluster)) {
      first = cluster + 1;
      have = 0;
    } else {
      ++have;
    }
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (const int error = set(first + i, 1)) return error;
  }
  used(first + count);
  return 0;
}

}  // namespace caisson::qcow2
