// A qcow2 image, version 2 or 3: one layer of a disk, with what it leaves out read from its backing layer.
//   Models   standard, zero and compressed clusters (zlib, zstd: read; a write makes them standard ones), refcounts of
//            every width, copy-on-write against the backing layer and against internal snapshots, discard, zeroes
//   Omits    encryption, external data files, extended L2 entries, writing compressed clusters, keeping persistent
//            bitmaps (they are marked stale as the specification asks), lazy refcounts (counts are always kept)
//   Order    data, then refcounts and new L2 tables, sync, then L2 tables and L1 entries, sync, then what has become
//            free is counted so. Table changes stay in memory until flush(), or until they are many. So whenever the
//            process or the host ends, the image is whole, and some clusters are lost to it at worst.
//   Hostile  every entry is checked before it is used; no write goes to a cluster that holds a table. What is found
//            wrong is logged once, marks the image as corrupt, and from then on writes fail with EIO.
//   Threads  any, at the same time. One lock over the tables, never held during data I/O.
//   Errors   0 or an errno value; one line where an image cannot be opened
#pragma once

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "backend/qcow2/header.h"
#include "backend/qcow2/range_lock.h"
#include "backend/qcow2/refcounts.h"
#include "backend/qcow2/source.h"
#include "backend/qcow2/table_cache.h"
#include "base/fd.h"
#include "base/result.h"

namespace caisson::qcow2 {

struct OpenOptions {
  std::string name{};                         // for messages
  bool read_only = false;                     // nothing in the file changes, not even marks
  bool allow_corrupt = false;                 // with read_only: look at an image that is marked as corrupt
  std::string snapshot{};                     // with read_only: an internal snapshot's name or id instead of the disk
  std::unique_ptr<Source> backing{};          // must be there exactly when the header names a backing file
  uint64_t cache_bytes = uint64_t{32} << 20;  // of L2 tables
};

class Image final : public Source {
 public:
  // An image that was not closed well (dirty bit) is repaired first; read-only ones then only if their tables are
  // whole.
  [[nodiscard]] static Result<std::unique_ptr<Image>> open(Fd fd, OpenOptions options);
  ~Image() override;  // without flush(): call it before

  [[nodiscard]] uint64_t size() const override { return size_; }
  [[nodiscard]] int read(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers) override;
  [[nodiscard]] int extent(uint64_t offset, uint64_t length, Extent& found) override;
  [[nodiscard]] bool try_locate(uint64_t offset, uint64_t length, std::vector<Piece>& pieces) override;

  [[nodiscard]] int write(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers);
  // Whole clusters only; parts of clusters keep their content. Afterwards the range reads as zeroes, or as before
  // where that cannot be said in this version of the format.
  [[nodiscard]] int discard(uint64_t offset, uint64_t length);
  [[nodiscard]] int write_zeroes(uint64_t offset, uint64_t length, bool may_unmap);
  // Everything that completed before is on the disk afterwards.
  [[nodiscard]] int flush();
  // The disk's size; bytes beyond a smaller one are lost. Refused (ENOTSUP) where snapshots stand against it.
  [[nodiscard]] int resize(uint64_t bytes);

  // Where data can be written over in place, like try_locate(); keep the lock until that is done.
  [[nodiscard]] bool try_locate_for_write(uint64_t offset, uint64_t length, std::vector<Piece>& pieces);
  // The lock under which a range may be read or written in place by the pieces above.
  [[nodiscard]] std::optional<RangeLock::Held> try_lock(uint64_t offset, uint64_t length);
  // Nothing but the file itself has to be synced. May say no for want of an answer.
  [[nodiscard]] bool try_clean();

  [[nodiscard]] const Header& header() const { return header_; }
  [[nodiscard]] const std::vector<Snapshot>& snapshots() const { return snapshots_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool read_only() const { return options_.read_only; }

 private:
  using Lock = std::unique_lock<std::mutex>;
  enum class Kind : uint8_t { Unallocated, Zero, Data, Compressed };
  struct Cluster {
    Kind kind = Kind::Unallocated;
    uint64_t host_offset = 0;  // Data; Zero with a cluster behind it; Compressed: of the first byte
    uint64_t length = 0;       // Compressed: bytes to read
    bool in_place = false;     // Data: may be written over
  };
  struct Run {  // adjacent clusters of one kind; Data: adjacent in the file as well
    Cluster first;
    uint64_t length = 0;  // bytes from the offset asked for
  };
  // What one commit writes: copies, so that requests go on meanwhile.
  struct Commit {
    struct Write {
      TableCache* cache;  // null: entries of the L1 table
      uint64_t table;     // its offset; of the L1 table: the index of the entry
      size_t begin;       // in it
      bool fresh;
      uint64_t place;
      std::vector<uint8_t> bytes;
    };
    std::vector<Write> before;    // nothing on the disk refers to what these say
    std::vector<Write> after;     // these refer to it
    std::vector<uint64_t> freed;  // freed_ until then
  };

  Image(Fd fd, OpenOptions options) : fd_(std::move(fd)), options_(std::move(options)) {}
  [[nodiscard]] Result<> open_tables();
  [[nodiscard]] Result<> open_snapshots();
  [[nodiscard]] Result<> read_l1(uint64_t offset, uint64_t entries);
  [[nodiscard]] Result<> prepare_for_writing();

  [[nodiscard]] uint64_t cluster_of(uint64_t offset) const { return offset >> header_.cluster_bits; }
  [[nodiscard]] uint64_t in_cluster(uint64_t offset) const { return offset & (header_.cluster_size() - 1); }
  [[nodiscard]] size_t l1_index(uint64_t offset) const { return offset >> (2 * header_.cluster_bits - 3); }
  [[nodiscard]] size_t l2_index(uint64_t offset) const { return cluster_of(offset) & (header_.l2_entries() - 1); }
  [[nodiscard]] RangeLock::Held lock_range(uint64_t offset, uint64_t length, bool exclusive) {
    return ranges_.take(cluster_of(offset), cluster_of(offset + length - 1), exclusive);
  }
  [[nodiscard]] int damaged(std::string what);
  [[nodiscard]] int refcount_error(int error);

  // With the lock held; it is dropped and taken again while a table is read.
  [[nodiscard]] int load_l2(Lock& lock, size_t index, Table*& table);
  [[nodiscard]] int l2_for_write(Lock& lock, size_t index, Table*& table);
  [[nodiscard]] int classify(uint64_t entry, Cluster& cluster);
  [[nodiscard]] int run_at(Lock& lock, uint64_t offset, uint64_t length, Run& run);
  [[nodiscard]] int run_in(const Table& table, uint64_t offset, uint64_t length, Run& run);
  [[nodiscard]] int find_run(uint64_t offset, uint64_t length, Run& run);
  [[nodiscard]] bool try_pieces(uint64_t offset, uint64_t length, bool for_write, std::vector<Piece>& pieces);

  [[nodiscard]] int read_run(const Run& run, uint64_t offset, const std::vector<iovec>& buffers);
  [[nodiscard]] int read_backing(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers);
  [[nodiscard]] int read_compressed(const Cluster& cluster, uint64_t skip, const std::vector<iovec>& buffers);
  [[nodiscard]] int read_unlocked(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers);
  [[nodiscard]] int write_unlocked(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers);
  [[nodiscard]] int write_new(Lock& lock, uint64_t offset, uint64_t length, const std::vector<iovec>& buffers,
                              uint64_t& written);
  [[nodiscard]] int change_clusters(uint64_t offset, uint64_t length, bool discard, bool may_unmap);
  [[nodiscard]] int zero_part(uint64_t offset, uint64_t length);
  void release(uint64_t entry);
  [[nodiscard]] bool reads_zero(const Cluster& cluster, uint64_t offset) const;

  static void take(Table& table, TableCache& cache, std::vector<Commit::Write>& list);
  void collect(Commit& commit);
  [[nodiscard]] int write_commit(const Commit& commit);
  [[nodiscard]] int finish_commit(Commit& commit);
  void restore(const Commit& commit);
  [[nodiscard]] int commit();
  [[nodiscard]] int limit_dirty();
  [[nodiscard]] int grow_l1(uint64_t entries);

  const Fd fd_;
  OpenOptions options_;
  Header header_;
  std::vector<Snapshot> snapshots_;
  uint64_t size_ = 0;
  RangeLock ranges_;

  mutable std::mutex mutex_;  // over all that follows, but never during data I/O
  std::condition_variable loaded_;
  std::vector<uint64_t> l1_;
  std::set<size_t> l1_dirty_;
  std::unordered_set<uint64_t> metadata_;  // numbers of clusters with tables
  std::unordered_set<uint64_t> loading_;   // L2 tables that some thread reads now
  std::unique_ptr<TableCache> l2_;
  std::unique_ptr<Refcounts> refcounts_;
  std::vector<uint64_t> freed_;  // clusters that lose one reference once the tables are on the disk
  bool changed_ = false;         // since the last commit began
  bool committing_ = false;
  bool corrupt_ = false;
  uint64_t changes_ = 0;  // requests that may have changed tables

  // Compressed clusters that were read last: readers take them in small pieces. Nobody writes compressed ones, so what
  // an entry names never changes.
  struct Unpacked {
    uint64_t host_offset = 0;  // 0: none
    std::vector<uint8_t> bytes{};
  };
  std::mutex unpacked_mutex_;  // taken alone
  std::array<Unpacked, 4> unpacked_;
  size_t unpacked_next_ = 0;

  std::mutex commit_mutex_;  // one commit at a time; taken before mutex_
};

}  // namespace caisson::qcow2
