// Requests on an image: how each changes its clusters. The order of what reaches the disk is in commit.cpp.
#include "backend/qcow2/image.h"

#include <algorithm>
#include <cerrno>

#include <fmt/core.h>

#include "backend/disk_io.h"
#include "backend/qcow2/compressed.h"
#include "backend/qcow2/file_io.h"

namespace caisson::qcow2 {

int Image::read(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers) {
  if (offset > size_ || length > size_ - offset) return EINVAL;
  if (length == 0) return 0;
  const auto held = lock_range(offset, length, false);
  return read_unlocked(offset, length, buffers);
}

int Image::read_unlocked(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers) {
  for (uint64_t done = 0; done < length;) {
    Run run;
    if (const int error = find_run(offset + done, length - done, run)) return error;
    if (const int error = read_run(run, offset + done, slice(buffers, done, run.length))) return error;
    done += run.length;
  }
  return 0;
}

int Image::read_run(const Run& run, uint64_t offset, const std::vector<iovec>& buffers) {
  switch (run.first.kind) {
    case Kind::Data: return read_at(fd_.get(), run.first.host_offset + in_cluster(offset), buffers);
    case Kind::Zero: fill_zero(buffers); return 0;
    case Kind::Compressed: return read_compressed(run.first, in_cluster(offset), buffers);
    case Kind::Unallocated: return read_backing(offset, run.length, buffers);
  }
  return EIO;
}

int Image::read_backing(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers) {
  uint64_t there = 0;
  if (options_.backing != nullptr && offset < options_.backing->size()) {
    there = std::min(length, options_.backing->size() - offset);
    if (const int error = options_.backing->read(offset, there, slice(buffers, 0, there))) return error;
  }
  if (there < length) fill_zero(slice(buffers, there, length - there));
  return 0;
}

int Image::read_compressed(const Cluster& cluster, uint64_t skip, const std::vector<iovec>& buffers) {
  const auto copy = [&](const std::vector<uint8_t>& plain) {
    for (const iovec& buffer : buffers) {
      std::memcpy(buffer.iov_base, &plain[skip], buffer.iov_len);
      skip += buffer.iov_len;
    }
  };
  {
    const std::lock_guard lock{unpacked_mutex_};
    for (const Unpacked& known : unpacked_) {
      if (known.host_offset != cluster.host_offset) continue;
      copy(known.bytes);
      return 0;
    }
  }
  std::vector<uint8_t> packed(cluster.length), plain(header_.cluster_size());
  if (const int error = read_at(fd_.get(), cluster.host_offset, packed)) return error;
  if (const int error = decompress(header_.compression, packed, plain)) {
    const Lock lock{mutex_};
    return error == EIO ? damaged(fmt::format("the compressed cluster at byte {} is not one", cluster.host_offset))
                        : error;
  }
  copy(plain);
  const std::lock_guard lock{unpacked_mutex_};
  unpacked_[unpacked_next_++ % unpacked_.size()] = {cluster.host_offset, std::move(plain)};
  return 0;
}

int Image::write(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers) {
  if (offset > size_ || length > size_ - offset) return EINVAL;
  if (options_.read_only) return EROFS;
  if (length == 0) return 0;
  if (const auto shared = try_lock(offset, length)) {
    std::vector<Piece> pieces;
    if (try_locate_for_write(offset, length, pieces)) {
      uint64_t done = 0;
      for (const Piece& piece : pieces) {
        if (const int error = write_at(piece.fd, piece.offset, slice(buffers, done, piece.length))) return error;
        done += piece.length;
      }
      return 0;
    }
  }
  const auto held = lock_range(offset, length, true);
  if (const int error = write_unlocked(offset, length, buffers)) return error;
  return limit_dirty();
}

int Image::write_unlocked(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers) {
  Lock lock{mutex_};
  for (uint64_t done = 0; done < length;) {
    if (corrupt_) return EIO;
    Run run;
    if (const int error = run_at(lock, offset + done, length - done, run)) return error;
    const bool own_table = (l1_[l1_index(offset + done)] & copied_flag) != 0;
    if (run.first.kind == Kind::Data && run.first.in_place && own_table) {
      const uint64_t place = run.first.host_offset + in_cluster(offset + done);
      for (uint64_t cluster = cluster_of(place); cluster <= cluster_of(place + run.length - 1); ++cluster) {
        if (metadata_.contains(cluster)) {
          return damaged(fmt::format("data would lie over the table at byte {}", cluster << header_.cluster_bits));
        }
      }
      lock.unlock();
      const int error = write_at(fd_.get(), place, slice(buffers, done, run.length));
      lock.lock();
      if (error != 0) return error;
      done += run.length;
    } else {
      uint64_t written = 0;
      const int error = write_new(lock, offset + done, length - done, slice(buffers, done, length - done), written);
      if (error != 0) return error;
      done += written;
    }
  }
  return 0;
}

bool Image::reads_zero(const Cluster& cluster, uint64_t offset) const {
  if (cluster.kind == Kind::Zero) return true;
  return cluster.kind == Kind::Unallocated && (options_.backing == nullptr || offset >= options_.backing->size());
}

// Puts data into clusters of their own, as many as are free side by side. Called, and comes back, with the lock held.
int Image::write_new(Lock& lock, uint64_t offset, uint64_t length, const std::vector<iovec>& buffers,
                     uint64_t& written) {
  const uint64_t cluster_size = header_.cluster_size(), head = in_cluster(offset), start = offset - head;
  const size_t l1 = l1_index(offset), index = l2_index(offset);
  Table* table = nullptr;
  if (const int error = l2_for_write(lock, l1, table)) return error;
  const uint64_t most = std::min(divide_up(head + length, cluster_size), header_.l2_entries() - index);
  std::vector<uint64_t> old;
  Cluster first_cluster, last_cluster;
  while (old.size() < most) {
    const uint64_t entry = table->entry(index + old.size());
    Cluster cluster;
    if (const int error = classify(entry, cluster)) return error;
    if (cluster.kind == Kind::Data && cluster.in_place) break;
    if (old.empty()) first_cluster = cluster;
    old.push_back(entry);
  }
  if (old.empty()) {  // it became writable by the table's copy; the caller looks again
    written = 0;
    return 0;
  }
  uint64_t host = 0, taken = 0;
  if (const int error = refcounts_->allocate(old.size(), host, taken)) return refcount_error(error);
  const bool fresh = host >= refcounts_->never_used();  // holes read as zeroes
  refcounts_->used(host + taken);
  changed_ = true;
  old.resize(taken);
  int error = classify(old.back(), last_cluster);
  lock.unlock();

  const uint64_t bytes = std::min(length, taken * cluster_size - head);
  const uint64_t tail = taken * cluster_size - head - bytes, tail_at = offset + bytes;
  uint64_t place = host << header_.cluster_bits;
  std::vector<uint8_t> before, behind;
  std::vector<iovec> parts;
  const auto keep = [&](const Cluster& cluster, uint64_t from, uint64_t size, std::vector<uint8_t>& copy) {
    copy.resize(size);
    const uint64_t inside = from < size_ ? std::min(size, size_ - from) : 0;
    if (inside > 0) error = read_run({cluster, inside}, from, {{copy.data(), inside}});
  };
  if (error == 0 && head > 0) {
    if (fresh && reads_zero(first_cluster, start)) {
      place += head;
    } else {
      keep(first_cluster, start, head, before);
      parts.push_back({before.data(), before.size()});
    }
  }
  for (const iovec& part : slice(buffers, 0, bytes)) parts.push_back(part);
  if (error == 0 && tail > 0 && !(fresh && reads_zero(last_cluster, tail_at - in_cluster(tail_at)))) {
    keep(last_cluster, tail_at, tail, behind);
    parts.push_back({behind.data(), behind.size()});
  }
  if (error == 0) error = write_at(fd_.get(), place, std::move(parts));
  lock.lock();
  // Others may have had the table dropped meanwhile; our entries in it are as they were.
  if (error == 0) error = load_l2(lock, l1, table);
  if (error != 0) {
    for (uint64_t i = 0; i < taken; ++i) {
      if (const int worse = refcounts_->add(host + i, -1)) return refcount_error(worse);
    }
    return error;
  }
  changed_ = true;
  for (uint64_t i = 0; i < taken; ++i) {
    table->set_entry(index + i, ((host + i) << header_.cluster_bits) | copied_flag);
    release(old[i]);
  }
  written = bytes;
  return 0;
}

// The clusters of an entry that is no more.
void Image::release(uint64_t entry) {
  Cluster cluster;
  if (classify(entry, cluster) != 0) return;
  if (cluster.kind == Kind::Compressed) {
    const uint64_t last = cluster_of(cluster.host_offset + cluster.length - 1);
    for (uint64_t number = cluster_of(cluster.host_offset); number <= last; ++number) freed_.push_back(number);
  } else if (cluster.host_offset != 0) {
    freed_.push_back(cluster_of(cluster.host_offset));
  }
}

int Image::discard(uint64_t offset, uint64_t length) {
  if (offset > size_ || length > size_ - offset) return EINVAL;
  if (options_.read_only) return EROFS;
  const uint64_t cluster_size = header_.cluster_size();
  const uint64_t begin = round_up(offset, cluster_size);
  // The disk may end within its last cluster.
  const uint64_t end =
      offset + length == size_ ? round_up(size_, cluster_size) : (offset + length) / cluster_size * cluster_size;
  if (begin >= end) return 0;
  const auto held = lock_range(begin, end - begin, true);
  if (const int error = change_clusters(begin, end - begin, true, true)) return error;
  return limit_dirty();
}

int Image::write_zeroes(uint64_t offset, uint64_t length, bool may_unmap) {
  if (offset > size_ || length > size_ - offset) return EINVAL;
  if (options_.read_only) return EROFS;
  if (length == 0) return 0;
  const auto held = lock_range(offset, length, true);
  const uint64_t cluster_size = header_.cluster_size(), stop = offset + length;
  const uint64_t begin = round_up(offset, cluster_size);
  const uint64_t end = stop == size_ ? round_up(stop, cluster_size) : stop / cluster_size * cluster_size;
  if (begin >= end) {
    // Within one cluster, or in two neighbours.
    const uint64_t middle = std::min(begin, stop);
    if (offset < middle) {
      if (const int error = zero_part(offset, middle - offset)) return error;
    }
    return middle < stop ? zero_part(middle, stop - middle) : 0;
  }
  if (offset < begin) {
    if (const int error = zero_part(offset, begin - offset)) return error;
  }
  if (const int error = change_clusters(begin, end - begin, false, may_unmap)) return error;
  if (end < stop) {
    if (const int error = zero_part(end, stop - end)) return error;
  }
  return limit_dirty();
}

// Zeroes within one cluster.
int Image::zero_part(uint64_t offset, uint64_t length) {
  Run run;
  if (const int error = find_run(offset, length, run)) return error;
  if (reads_zero(run.first, offset - in_cluster(offset))) return 0;
  std::vector<uint8_t> zeroes(length);
  return write_unlocked(offset, length, {{zeroes.data(), length}});
}

// Whole clusters become zeroes or, by a discard, may.
int Image::change_clusters(uint64_t offset, uint64_t length, bool discard, bool may_unmap) {
  const bool v3 = header_.version == 3, backed = options_.backing != nullptr;
  const uint64_t cluster_size = header_.cluster_size(), stop = offset + length;
  const uint64_t covered = header_.l2_entries() << header_.cluster_bits;
  if (discard && !v3 && backed) return 0;  // the backing file's content would come to light
  Lock lock{mutex_};
  while (offset < stop) {
    if (corrupt_) return EIO;
    const size_t l1 = l1_index(offset);
    const uint64_t end = std::min(stop, offset - offset % covered + covered);
    if (l1 >= l1_.size() || ((l1_[l1] & offset_mask) == 0 && (discard || !backed))) {
      offset = end;
      continue;
    }
    Table* table = nullptr;
    if (const int error = l2_for_write(lock, l1, table)) return error;
    for (; offset < end; offset += cluster_size) {
      const size_t index = l2_index(offset);
      const uint64_t entry = table->entry(index);
      Cluster cluster;
      if (const int error = classify(entry, cluster)) return error;
      uint64_t wanted = entry;
      if (discard) {
        const bool holds = cluster.kind != Kind::Unallocated && cluster.host_offset != 0;
        if (holds) wanted = backed ? zero_flag : 0;
      } else if (!reads_zero(cluster, offset) || (may_unmap && cluster.host_offset != 0)) {
        if (v3) {
          const bool keep = !may_unmap && cluster.kind == Kind::Data && cluster.in_place;
          wanted = keep ? entry | zero_flag : zero_flag;
        } else if (!backed) {
          wanted = 0;
        } else {
          lock.unlock();
          const uint64_t inside = std::min(cluster_size, size_ - offset);
          if (const int error = zero_part(offset, inside)) return error;
          lock.lock();
          if (const int error = l2_for_write(lock, l1, table)) return error;
          continue;
        }
      }
      if (wanted == entry) continue;
      changed_ = true;
      table->set_entry(index, wanted);
      if ((wanted & offset_mask) == 0) release(entry);
    }
  }
  return 0;
}

}  // namespace caisson::qcow2
