// How changes of tables reach the disk, and changes of size.
#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <utility>

#include "backend/qcow2/file_io.h"
#include "backend/qcow2/image.h"

namespace caisson::qcow2 {

// What is changed of a table, which counts as written from now on.
void Image::take(Table& table, TableCache& cache, std::vector<Commit::Write>& list) {
  list.push_back({&cache,
                  table.offset,
                  table.dirty_begin,
                  table.fresh,
                  table.offset + table.dirty_begin,
                  {table.bytes.begin() + static_cast<ptrdiff_t>(table.dirty_begin),
                   table.bytes.begin() + static_cast<ptrdiff_t>(table.dirty_end)}});
  table.clean();
  table.fresh = false;
  table.committing = true;
}

// Takes everything that is changed; with the lock held.
void Image::collect(Commit& commit) {
  refcounts_->blocks().for_each([&](Table& table) {
    if (table.dirty()) take(table, refcounts_->blocks(), commit.before);
  });
  l2_->for_each([&](Table& table) {
    if (table.dirty()) take(table, *l2_, table.fresh ? commit.before : commit.after);
  });
  for (const size_t index : l1_dirty_) {
    std::vector<uint8_t> entry(8);
    store<uint64_t>(entry.data(), l1_[index]);
    commit.after.push_back({nullptr, index, 0, false, header_.l1_offset + index * 8, std::move(entry)});
  }
  l1_dirty_.clear();
  commit.freed = std::exchange(freed_, {});
}

int Image::write_commit(const Commit& commit) {
  for (const auto& write : commit.before) {
    if (const int error = write_at(fd_.get(), write.place, write.bytes)) return error;
  }
  if (const int error = sync_data(fd_.get())) return error;  // the data of guests as well
  if (commit.after.empty()) return 0;
  for (const auto& write : commit.after) {
    if (const int error = write_at(fd_.get(), write.place, write.bytes)) return error;
  }
  return sync_data(fd_.get());
}

// Nothing on the disk refers to the freed clusters any more: they can be used again.
int Image::finish_commit(Commit& commit) {
  std::map<uint64_t, uint64_t> freed;
  for (const uint64_t cluster : commit.freed) ++freed[cluster];
  std::vector<std::pair<uint64_t, uint64_t>> holes;  // first, count
  Lock lock{mutex_};
  for (const auto& [cluster, references] : freed) {
    uint64_t count = 0;
    if (const int error = refcounts_->get(cluster, count)) return refcount_error(error);
    if (count != references || metadata_.contains(cluster)) continue;
    if (!holes.empty() && holes.back().first + holes.back().second == cluster) {
      ++holes.back().second;
    } else {
      holes.emplace_back(cluster, 1);
    }
  }
  lock.unlock();
  for (const auto& [first, count] : holes) {
    punch_hole(fd_.get(), first << header_.cluster_bits, count << header_.cluster_bits);
  }
  lock.lock();
  for (const auto& [cluster, references] : freed) {
    const int error = refcounts_->add(cluster, -static_cast<int64_t>(references));
    if (error != 0) return refcount_error(error);
  }
  // Counts may reach the disk at any time once they are not too low.
  Commit counts;
  refcounts_->blocks().for_each([&](Table& table) {
    if (table.dirty()) take(table, refcounts_->blocks(), counts.before);
  });
  lock.unlock();
  int error = 0;
  for (const auto& write : counts.before) {
    if (error == 0) error = write_at(fd_.get(), write.place, write.bytes);
  }
  lock.lock();
  if (error != 0) restore(counts);
  commit.before.insert(commit.before.end(), std::make_move_iterator(counts.before.begin()),
                       std::make_move_iterator(counts.before.end()));
  return error;
}

// What could not be written is changed still; with the lock held.
void Image::restore(const Commit& commit) {
  for (const auto* list : {&commit.before, &commit.after}) {
    for (const auto& write : *list) {
      if (write.cache == nullptr) {
        l1_dirty_.insert(write.table);
      } else if (Table* const table = write.cache->find(write.table)) {
        table->touch(write.begin, write.bytes.size());
        table->fresh = table->fresh || write.fresh;
      }
    }
  }
  freed_.insert(freed_.end(), commit.freed.begin(), commit.freed.end());
  changed_ = true;
}

int Image::commit() {
  const std::lock_guard one{commit_mutex_};
  Commit commit;
  {
    const Lock lock{mutex_};
    if (corrupt_) return EIO;
    committing_ = true;
    changed_ = false;
    collect(commit);
  }
  int error = write_commit(commit);
  if (error != 0) {
    const Lock lock{mutex_};
    restore(commit);
  } else if (!commit.freed.empty()) {
    error = finish_commit(commit);
  }
  const Lock lock{mutex_};
  for (const auto* list : {&commit.before, &commit.after}) {
    for (const auto& write : *list) {
      Table* const table = write.cache == nullptr ? nullptr : write.cache->find(write.table);
      if (table != nullptr) table->committing = false;
    }
  }
  committing_ = false;
  return error;
}

int Image::flush() {
  if (options_.read_only) return 0;
  {
    const Lock lock{mutex_};
    if (corrupt_) return EIO;
    if (!changed_ && !committing_) return sync_data(fd_.get());
  }
  return commit();
}

// Changed tables cannot leave the caches: they are written when they take half of one.
int Image::limit_dirty() {
  {
    const Lock lock{mutex_};
    const uint64_t interval = std::max<uint64_t>(l2_->capacity() / header_.cluster_size() / 16, 1);
    if (++changes_ % interval != 0) return 0;
    const auto many = [&](TableCache& cache) {
      uint64_t tables = 0;
      cache.for_each([&](const Table& table) { tables += table.dirty() ? 1 : 0; });
      return tables * header_.cluster_size() > cache.capacity() / 2;
    };
    if (!many(*l2_) && !many(refcounts_->blocks())) return 0;
  }
  return commit();
}

int Image::grow_l1(uint64_t entries) {
  if (const int error = commit()) return error;
  const uint64_t clusters = divide_up(entries * 8, header_.cluster_size());
  uint64_t first = 0;
  {
    const Lock lock{mutex_};
    if (const int error = refcounts_->allocate_adjacent(clusters, first)) return refcount_error(error);
    changed_ = true;
    for (uint64_t i = 0; i < clusters; ++i) metadata_.insert(first + i);
  }
  if (const int error = commit()) return error;  // counted before it is named
  const Lock lock{mutex_};
  std::vector<uint64_t> table = l1_;
  table.resize(entries);
  std::vector<uint8_t> bytes(clusters * header_.cluster_size());
  for (size_t i = 0; i < entries; ++i) store<uint64_t>(&bytes[i * 8], table[i]);
  const uint64_t offset = first << header_.cluster_bits;
  if (const int error = write_at(fd_.get(), offset, bytes)) return error;
  if (const int error = sync_data(fd_.get())) return error;
  std::array<uint8_t, 12> place{};
  store<uint32_t>(place.data(), static_cast<uint32_t>(entries));
  store<uint64_t>(&place[4], offset);
  if (const int error = write_at(fd_.get(), at::l1_size, place)) return error;
  if (const int error = sync_data(fd_.get())) return error;
  const uint64_t old_clusters = divide_up(uint64_t{header_.l1_size} * 8, header_.cluster_size());
  for (uint64_t i = 0; i < old_clusters; ++i) {
    metadata_.erase(cluster_of(header_.l1_offset) + i);
    freed_.push_back(cluster_of(header_.l1_offset) + i);
  }
  changed_ = true;
  header_.l1_offset = offset;
  header_.l1_size = static_cast<uint32_t>(entries);
  l1_ = std::move(table);
  return 0;
}

int Image::resize(uint64_t bytes) {
  if (options_.read_only) return EROFS;
  if (bytes == 0 || bytes % 512 != 0) return EINVAL;
  if (!snapshots_.empty() && (bytes < size_ || header_.version == 2)) return ENOTSUP;
  const uint64_t entries = bytes > uint64_t{1} << 62 ? UINT64_MAX : header_.l1_entries_for(bytes);
  if (entries > max_l1_bytes / 8) return EFBIG;
  const uint64_t old_size = size_, cluster_size = header_.cluster_size();
  if (bytes < old_size) {
    const uint64_t begin = round_up(bytes, cluster_size), end = round_up(old_size, cluster_size);
    // Not what a guest's discard does: a larger size later must not find the backing file's content here.
    if (begin < end) {
      if (const int error = change_clusters(begin, end - begin, false, true)) return error;
    }
    // The last cluster's rest as well.
    const uint64_t rest = std::min(begin, old_size);
    if (rest > bytes) {
      if (const int error = zero_part(bytes, rest - bytes)) return error;
    }
  } else if (entries > l1_.size()) {
    if (const int error = grow_l1(entries)) return error;
  }
  // Where a smaller disk ended the backing file goes on: not to be seen when the disk grows.
  if (bytes > old_size && options_.backing != nullptr && options_.backing->size() > old_size) {
    const uint64_t end = std::min(bytes, options_.backing->size());
    size_ = bytes;
    if (const int error = write_zeroes(old_size, end - old_size, true)) {
      size_ = old_size;
      return error;
    }
  }
  size_ = bytes;
  int error = commit();
  std::array<uint8_t, 8> field{};
  store<uint64_t>(field.data(), bytes);
  if (error == 0) error = write_at(fd_.get(), at::size, field);
  if (error != 0) {
    size_ = old_size;
    return error;
  }
  header_.size = bytes;
  return flush();
}

}  // namespace caisson::qcow2
