// From an offset of the disk to a place in the file.
#include <algorithm>
#include <array>
#include <cerrno>

#include <fmt/core.h>

#include "backend/qcow2/file_io.h"
#include "backend/qcow2/image.h"
#include "base/log.h"

namespace caisson::qcow2 {

int Image::damaged(std::string what) {
  if (corrupt_) return EIO;
  corrupt_ = true;
  log::error("disk {}: the image is damaged: {}; see 'caisson disk check {}'", options_.name, what, options_.name);
  if (!options_.read_only && header_.version == 3) {
    header_.incompatible |= incompatible_corrupt;
    std::array<uint8_t, 8> bits{};
    store<uint64_t>(bits.data(), header_.incompatible);
    (void)write_at(fd_.get(), at::incompatible, bits);
  }
  return EIO;
}

int Image::refcount_error(int error) {
  if (refcounts_->damage.empty()) return error;
  return damaged(std::exchange(refcounts_->damage, {}));
}

int Image::load_l2(Lock& lock, size_t index, Table*& table) {
  for (;;) {
    const uint64_t offset = l1_[index] & offset_mask;
    table = l2_->find(offset);
    if (table != nullptr) return 0;
    if (in_cluster(offset) != 0 || offset == 0)
      return damaged(fmt::format("L2 table {} would be at byte {}", index, offset));
    if (loading_.contains(offset)) {
      loaded_.wait(lock);
      continue;
    }
    loading_.insert(offset);
    lock.unlock();
    std::vector<uint8_t> bytes(header_.cluster_size());
    uint64_t size = 0;
    int error = file_size(fd_.get(), size);
    if (error == 0) error = read_at(fd_.get(), offset, bytes);
    lock.lock();
    loading_.erase(offset);
    loaded_.notify_all();
    if (error != 0) return error;
    if (offset >= size)
      return damaged(fmt::format("L2 table {} at byte {} lies beyond the end of the file", index, offset));
    if (l2_->find(offset) == nullptr) l2_->put(offset, std::move(bytes));
  }
}

// The L2 table, for this disk alone and named by the L1 table in memory.
int Image::l2_for_write(Lock& lock, size_t index, Table*& table) {
  const auto exists = [&] { return (l1_[index] & offset_mask) != 0; };
  const auto own = [&] { return (l1_[index] & copied_flag) != 0; };
  if (exists()) {
    if (const int error = load_l2(lock, index, table)) return error;
    if (own()) return 0;
  }
  std::vector<uint8_t> bytes = exists() ? table->bytes : std::vector<uint8_t>(header_.cluster_size());
  uint64_t cluster = 0, taken = 0;
  if (const int error = refcounts_->allocate(1, cluster, taken)) return refcount_error(error);
  refcounts_->used(cluster + 1);
  changed_ = true;
  if (const uint64_t shared = l1_[index] & offset_mask; shared != 0) {
    metadata_.erase(cluster_of(shared));
    l2_->drop(shared);
    freed_.push_back(cluster_of(shared));
  }
  const uint64_t offset = cluster << header_.cluster_bits;
  metadata_.insert(cluster);
  table = &l2_->put(offset, std::move(bytes));
  table->fresh = true;
  table->touch(0, header_.cluster_size());
  l1_[index] = offset | copied_flag;
  l1_dirty_.insert(index);
  return 0;
}

// [L2 table entry]
int Image::classify(uint64_t entry, Cluster& cluster) {
  cluster = {};
  if ((entry & compressed_flag) != 0) {
    // [Compressed Clusters Descriptor]
    const unsigned shift = 62 - (header_.cluster_bits - 8);
    const uint64_t sectors = (entry >> shift & ((uint64_t{1} << (header_.cluster_bits - 8)) - 1)) + 1;
    cluster.kind = Kind::Compressed;
    cluster.host_offset = entry & ((uint64_t{1} << shift) - 1);
    cluster.length = sectors * 512 - cluster.host_offset % 512;
    if (cluster.host_offset == 0 || cluster.host_offset > max_host_offset - cluster.length) {
      return damaged(fmt::format("a compressed cluster would be at byte {}", cluster.host_offset));
    }
    return 0;
  }
  cluster.host_offset = entry & offset_mask;
  if (in_cluster(cluster.host_offset) != 0) {
    return damaged(fmt::format("a cluster would be at byte {}", cluster.host_offset));
  }
  if ((entry & zero_flag) != 0) {
    if (header_.version == 2) return damaged("a cluster of zeroes in version 2 of the format");
    cluster.kind = Kind::Zero;
  } else if (cluster.host_offset != 0) {
    cluster.kind = Kind::Data;
    cluster.in_place = (entry & copied_flag) != 0;
  }
  return 0;
}

int Image::run_in(const Table& table, uint64_t offset, uint64_t length, Run& run) {
  const size_t index = l2_index(offset);
  if (const int error = classify(table.entry(index), run.first)) return error;
  const uint64_t cluster_size = header_.cluster_size();
  run.length = cluster_size - in_cluster(offset);
  if (run.first.kind != Kind::Compressed) {
    uint64_t place = run.first.host_offset;
    for (size_t next = index + 1; run.length < length && next < header_.l2_entries(); ++next) {
      Cluster cluster;
      if (const int error = classify(table.entry(next), cluster)) return error;
      place += cluster_size;
      const bool same = cluster.kind == run.first.kind && cluster.in_place == run.first.in_place &&
                        (cluster.kind != Kind::Data || cluster.host_offset == place);
      if (!same) break;
      run.length += cluster_size;
    }
  }
  run.length = std::min(run.length, length);
  return 0;
}

int Image::run_at(Lock& lock, uint64_t offset, uint64_t length, Run& run) {
  const size_t index = l1_index(offset);
  const uint64_t covered = header_.l2_entries() << header_.cluster_bits;
  length = std::min(length, covered - offset % covered);
  if (index >= l1_.size() || (l1_[index] & offset_mask) == 0) {
    run = {.first = {}, .length = length};
    return 0;
  }
  Table* table = nullptr;
  if (const int error = load_l2(lock, index, table)) return error;
  return run_in(*table, offset, length, run);
}

int Image::find_run(uint64_t offset, uint64_t length, Run& run) {
  Lock lock{mutex_};
  return run_at(lock, offset, length, run);
}

bool Image::try_pieces(uint64_t offset, uint64_t length, bool for_write, std::vector<Piece>& pieces) {
  const Lock lock{mutex_, std::try_to_lock};
  if (!lock.owns_lock() || corrupt_) return false;
  const uint64_t covered = header_.l2_entries() << header_.cluster_bits;
  constexpr size_t most = 64;
  while (length > 0) {
    if (pieces.size() > most) return false;
    const size_t index = l1_index(offset);
    Run run{.first = {}, .length = std::min(length, covered - offset % covered)};
    if (const uint64_t table_offset = l1_[index] & offset_mask; table_offset != 0) {
      if (for_write && (l1_[index] & copied_flag) == 0) return false;
      const Table* const table = l2_->find(table_offset);
      if (table == nullptr || run_in(*table, offset, run.length, run) != 0) return false;
    }
    const uint64_t place = run.first.host_offset + in_cluster(offset);
    if (for_write) {
      if (run.first.kind != Kind::Data || !run.first.in_place) return false;
      for (uint64_t cluster = cluster_of(place); cluster <= cluster_of(place + run.length - 1); ++cluster) {
        if (metadata_.contains(cluster)) return false;
      }
    }
    if (run.first.kind == Kind::Compressed) return false;
    if (run.first.kind == Kind::Data) {
      pieces.push_back({fd_.get(), place, run.length});
    } else if (run.first.kind == Kind::Zero || options_.backing == nullptr || offset >= options_.backing->size()) {
      pieces.push_back({-1, 0, run.length});
    } else {
      const uint64_t there = std::min(run.length, options_.backing->size() - offset);
      if (!options_.backing->try_locate(offset, there, pieces)) return false;
      if (there < run.length) pieces.push_back({-1, 0, run.length - there});
    }
    offset += run.length;
    length -= run.length;
  }
  return true;
}

bool Image::try_locate(uint64_t offset, uint64_t length, std::vector<Piece>& pieces) {
  return try_pieces(offset, length, false, pieces);
}

bool Image::try_locate_for_write(uint64_t offset, uint64_t length, std::vector<Piece>& pieces) {
  return !options_.read_only && try_pieces(offset, length, true, pieces);
}

std::optional<RangeLock::Held> Image::try_lock(uint64_t offset, uint64_t length) {
  return ranges_.try_take(cluster_of(offset), cluster_of(offset + length - 1), false);
}

bool Image::try_clean() {
  const Lock lock{mutex_, std::try_to_lock};
  return lock.owns_lock() && !changed_ && !committing_;
}

int Image::extent(uint64_t offset, uint64_t length, Extent& found) {
  Run run;
  if (const int error = find_run(offset, length, run)) return error;
  found = {.length = run.length};
  switch (run.first.kind) {
    case Kind::Data:
      found.content = Content::Data;
      found.present = true;
      found.host_offset = run.first.host_offset + in_cluster(offset);
      return 0;
    case Kind::Compressed:
      found.content = Content::Compressed;
      found.present = true;
      return 0;
    case Kind::Zero: found.present = true; return 0;
    case Kind::Unallocated: break;
  }
  if (options_.backing == nullptr || offset >= options_.backing->size()) return 0;
  const int error = options_.backing->extent(offset, std::min(run.length, options_.backing->size() - offset), found);
  ++found.depth;
  return error;
}

}  // namespace caisson::qcow2
