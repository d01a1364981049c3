#include "backend/qcow2/check.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "backend/qcow2/file_io.h"
#include "backend/qcow2/refcount_bits.h"

namespace caisson::qcow2 {
namespace {

constexpr size_t most_messages = 32;

// References by cluster; room only where there are any.
class Counts {
 public:
  void add(uint64_t cluster) { ++slot(cluster); }
  [[nodiscard]] uint64_t get(uint64_t cluster) const {
    const auto found = chunks_.find(cluster / chunk);
    return found == chunks_.end() ? 0 : (*found->second)[cluster % chunk];
  }
  // act(cluster, count) for those that are not zero, in order.
  template <class Act>
  void for_each(Act&& act) const {
    for (const auto& [number, counts] : chunks_) {
      for (uint64_t i = 0; i < chunk; ++i) {
        if ((*counts)[i] != 0) act(number * chunk + i, uint64_t{(*counts)[i]});
      }
    }
  }

 private:
  static constexpr uint64_t chunk = 512;
  using Chunk = std::array<uint32_t, chunk>;
  uint32_t& slot(uint64_t cluster) {
    auto& counts = chunks_[cluster / chunk];
    if (counts == nullptr) counts = std::make_unique<Chunk>();
    return (*counts)[cluster % chunk];
  }
  std::map<uint64_t, std::unique_ptr<Chunk>> chunks_;
};

class Check {
 public:
  Check(int fd, Header header, bool mend, const CheckProgress& progress)
      : fd_(fd), header_(std::move(header)), mend_(mend), progress_(progress) {}

  Result<CheckReport> run();

 private:
  [[nodiscard]] uint64_t cluster_size() const { return header_.cluster_size(); }
  Result<> read(uint64_t offset, std::vector<uint8_t>& bytes, std::string_view what);
  void corrupt(std::string message);
  bool refer(Counts& counts, uint64_t offset, uint64_t bytes, std::string_view what);
  Result<> walk_l1(uint64_t offset, uint64_t entries, bool active);
  Result<> walk_l2(uint64_t offset, bool active);
  void refer_entry(uint64_t entry, bool active);
  Result<> walk_bitmaps();
  Result<> walk_refcount_table();
  Result<> compare();
  Result<> compare_block(uint64_t number, uint64_t offset, std::set<uint64_t>& seen);
  Result<> check_copied();
  Result<> check_copied_l2(uint64_t offset);
  Result<> rebuild();
  Result<> finish();

  const int fd_;
  Header header_;
  const bool mend_;
  const CheckProgress& progress_;
  CheckReport report_;
  uint64_t file_bytes_ = 0;
  Counts counts_;  // all but the refcounts' own tables
  Counts own_;     // those
  std::vector<uint64_t> table_;
  bool must_rebuild_ = false;
};

Result<> Check::read(uint64_t offset, std::vector<uint8_t>& bytes, std::string_view what) {
  if (const int error = read_at(fd_, offset, bytes)) return fail_errno(error, fmt::format("cannot read {}", what));
  return {};
}

void Check::corrupt(std::string message) {
  ++report_.corruptions;
  if (report_.messages.size() < most_messages) report_.messages.push_back(std::move(message));
}

bool Check::refer(Counts& counts, uint64_t offset, uint64_t bytes, std::string_view what) {
  if (bytes == 0) return true;
  // The file may end within its last cluster.
  if (offset > max_host_offset || offset / cluster_size() * cluster_size() >= file_bytes_ ||
      (offset + bytes - 1) / cluster_size() * cluster_size() >= file_bytes_) {
    corrupt(fmt::format("{} at byte {} lies beyond the end of the file", what, offset));
    return false;
  }
  for (uint64_t cluster = offset / cluster_size(); cluster <= (offset + bytes - 1) / cluster_size(); ++cluster) {
    counts.add(cluster);
  }
  return true;
}

void Check::refer_entry(uint64_t entry, bool active) {
  if ((entry & compressed_flag) != 0) {
    const unsigned shift = 62 - (header_.cluster_bits - 8);
    const uint64_t sectors = (entry >> shift & ((uint64_t{1} << (header_.cluster_bits - 8)) - 1)) + 1;
    const uint64_t offset = entry & ((uint64_t{1} << shift) - 1);
    if (active) {
      ++report_.allocated_clusters;
      ++report_.compressed_clusters;
    }
    if ((entry & copied_flag) != 0)
      corrupt(fmt::format("the compressed cluster at byte {} is marked as copied", offset));
    refer(counts_, offset / 512 * 512, sectors * 512, "a compressed cluster");
    return;
  }
  const uint64_t offset = entry & offset_mask;
  if (offset == 0) return;
  if ((entry & zero_flag) != 0 && header_.version == 2) corrupt("a cluster of zeroes in version 2 of the format");
  if (offset % cluster_size() != 0) {
    corrupt(fmt::format("a cluster would be at byte {}", offset));
    return;
  }
  if (active && (entry & zero_flag) == 0) ++report_.allocated_clusters;
  refer(counts_, offset, cluster_size(), "a cluster");
}

Result<> Check::walk_l2(uint64_t offset, bool active) {
  std::vector<uint8_t> bytes(cluster_size());
  if (auto ok = read(offset, bytes, "an L2 table"); !ok) return ok;
  for (size_t i = 0; i < bytes.size(); i += 8) refer_entry(load<uint64_t>(&bytes[i]), active);
  return {};
}

Result<> Check::walk_l1(uint64_t offset, uint64_t entries, bool active) {
  if (entries == 0) return {};
  for (uint64_t at = offset; at < std::min(offset + entries * 8, file_bytes_); at += cluster_size()) {
    if (counts_.get(at / cluster_size()) == 0) continue;
    corrupt(fmt::format("an L1 table at byte {} lies over something else", offset));
    return {};  // nor is one table walked many times
  }
  if (!refer(counts_, offset, entries * 8, "an L1 table")) return {};
  std::vector<uint8_t> bytes(entries * 8);
  if (auto ok = read(offset, bytes, "an L1 table"); !ok) return ok;
  std::unordered_set<uint64_t> seen;
  for (uint64_t i = 0; i < entries; ++i) {
    if (active && progress_ && i % 64 == 0) progress_(static_cast<double>(i) / static_cast<double>(entries));
    const uint64_t table = load<uint64_t>(&bytes[i * 8]) & offset_mask;
    if (table == 0) continue;
    if (table % cluster_size() != 0) {
      corrupt(fmt::format("L2 table {} would be at byte {}", i, table));
      continue;
    }
    if (!seen.insert(table).second) {
      corrupt(fmt::format("L2 table {} at byte {} is another one as well", i, table));
      continue;
    }
    if (!refer(counts_, table, cluster_size(), "an L2 table")) continue;
    if (auto ok = walk_l2(table, active); !ok) return ok;
  }
  return {};
}

// [Bitmaps]
Result<> Check::walk_bitmaps() {
  if (!header_.bitmaps) return {};
  const Bitmaps& bitmaps = *header_.bitmaps;
  if (bitmaps.directory_size > max_snapshot_table_bytes || bitmaps.directory_offset % cluster_size() != 0) {
    corrupt("the directory of bitmaps is not one");
    return {};
  }
  if (!refer(counts_, bitmaps.directory_offset, bitmaps.directory_size, "the directory of bitmaps")) return {};
  std::vector<uint8_t> directory(bitmaps.directory_size);
  if (auto ok = read(bitmaps.directory_offset, directory, "the directory of bitmaps"); !ok) return ok;
  for (size_t at = 0; at + 24 <= directory.size();) {
    const uint64_t offset = load<uint64_t>(&directory[at]);
    const uint64_t entries = load<uint32_t>(&directory[at + 8]);
    const size_t whole = 24 + size_t{load<uint16_t>(&directory[at + 18])} + load<uint32_t>(&directory[at + 20]);
    at += round_up(whole, 8);
    if (entries * 8 > max_l1_bytes || offset % cluster_size() != 0) {
      corrupt("the table of a bitmap is not one");
      continue;
    }
    if (!refer(counts_, offset, entries * 8, "the table of a bitmap")) continue;
    std::vector<uint8_t> table(entries * 8);
    if (auto ok = read(offset, table, "the table of a bitmap"); !ok) return ok;
    for (size_t i = 0; i < table.size(); i += 8) {
      const uint64_t cluster = load<uint64_t>(&table[i]) & offset_mask;
      if (cluster != 0) refer(counts_, cluster, cluster_size(), "a bitmap");
    }
  }
  return {};
}

Result<> Check::walk_refcount_table() {
  const uint64_t bytes = header_.refcount_table_clusters * cluster_size();
  if (!refer(own_, header_.refcount_table_offset, bytes, "the refcount table")) must_rebuild_ = true;
  std::vector<uint8_t> entries(bytes);
  if (auto ok = read(header_.refcount_table_offset, entries, "the refcount table"); !ok) return ok;
  table_.resize(bytes / 8);
  for (size_t i = 0; i < table_.size(); ++i) {
    const uint64_t offset = load<uint64_t>(&entries[i * 8]) & ~uint64_t{511};
    if (offset == 0) continue;
    if (offset % cluster_size() != 0) {
      corrupt(fmt::format("refcount block {} would be at byte {}", i, offset));
      must_rebuild_ = true;
    } else if (own_.get(offset / cluster_size()) != 0) {
      corrupt(fmt::format("refcount block {} at byte {} is another table as well", i, offset));
      must_rebuild_ = true;
    } else if (!refer(own_, offset, cluster_size(), fmt::format("refcount block {}", i))) {
      must_rebuild_ = true;
    } else {
      table_[i] = offset;
    }
  }
  return {};
}

Result<> Check::compare_block(uint64_t number, uint64_t offset, std::set<uint64_t>& seen) {
  const uint64_t per_block = header_.refcounts_per_block();
  if (own_.get(offset / cluster_size()) + counts_.get(offset / cluster_size()) != 1) {
    corrupt(fmt::format("refcount block {} at byte {} is something else as well", number, offset));
    must_rebuild_ = true;
  }
  std::vector<uint8_t> block(cluster_size());
  if (auto ok = read(offset, block, "a refcount block"); !ok) return ok;
  bool changed = false;
  for (uint64_t i = 0; i < per_block; ++i) {
    const uint64_t cluster = number * per_block + i;
    const uint64_t said = get_refcount(block, header_.refcount_order, i);
    const uint64_t is = counts_.get(cluster) + own_.get(cluster);
    if (said == is) continue;
    if (said > is) {
      ++report_.leaks;
      if (report_.messages.size() < most_messages) {
        report_.messages.push_back(fmt::format("the cluster at byte {} is counted {} times and used {} times",
                                               cluster * cluster_size(), said, is));
      }
      set_refcount(block, header_.refcount_order, i, is);
      changed = true;
    } else {
      corrupt(fmt::format("the cluster at byte {} is used {} times and counted {} times", cluster * cluster_size(), is,
                          said));
      must_rebuild_ = true;
    }
  }
  seen.insert(number);
  if (mend_ && changed && !must_rebuild_) {
    if (const int error = write_at(fd_, offset, block)) return fail_errno(error, "cannot write a refcount block");
  }
  return {};
}

Result<> Check::compare() {
  std::set<uint64_t> seen;
  for (size_t i = 0; i < table_.size(); ++i) {
    if (table_[i] == 0) continue;
    if (auto ok = compare_block(i, table_[i], seen); !ok) return ok;
  }
  const auto missing = [&](uint64_t cluster, uint64_t count) {
    if (seen.contains(cluster / header_.refcounts_per_block())) return;
    corrupt(fmt::format("the cluster at byte {} is used {} times and not counted", cluster * cluster_size(), count));
    must_rebuild_ = true;
  };
  counts_.for_each(missing);
  own_.for_each(missing);
  return {};
}

// [L1 table entry, Standard Cluster Descriptor] COPIED is set exactly where there is one reference.
Result<> Check::check_copied_l2(uint64_t offset) {
  std::vector<uint8_t> bytes(cluster_size());
  if (auto ok = read(offset, bytes, "an L2 table"); !ok) return ok;
  bool changed = false;
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t entry = load<uint64_t>(&bytes[i]);
    const uint64_t host = entry & offset_mask;
    if ((entry & compressed_flag) != 0 || host == 0 || host % cluster_size() != 0) continue;
    const bool single = counts_.get(host / cluster_size()) == 1;
    if (single == ((entry & copied_flag) != 0)) continue;
    corrupt(fmt::format("the cluster at byte {} is {}marked as copied", host, single ? "not " : ""));
    store<uint64_t>(&bytes[i], entry ^ copied_flag);
    changed = true;
    ++report_.fixed_corruptions;
  }
  if (changed && mend_) {
    if (const int error = write_at(fd_, offset, bytes)) return fail_errno(error, "cannot write an L2 table");
  }
  return {};
}

Result<> Check::check_copied() {
  std::vector<uint8_t> bytes(uint64_t{header_.l1_size} * 8);
  if (auto ok = read(header_.l1_offset, bytes, "the L1 table"); !ok) return ok;
  std::unordered_set<uint64_t> seen;
  bool changed = false;
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t entry = load<uint64_t>(&bytes[i]);
    const uint64_t table = entry & offset_mask;
    if (table == 0 || table % cluster_size() != 0) continue;
    const uint64_t references = counts_.get(table / cluster_size());
    if (references == 0 || !seen.insert(table).second) continue;
    if ((references == 1) != ((entry & copied_flag) != 0)) {
      corrupt(fmt::format("the L2 table at byte {} is {}marked as copied", table, references == 1 ? "not " : ""));
      store<uint64_t>(&bytes[i], entry ^ copied_flag);
      changed = true;
      ++report_.fixed_corruptions;
    }
    if (auto ok = check_copied_l2(table); !ok) return ok;
  }
  if (changed && mend_) {
    if (const int error = write_at(fd_, header_.l1_offset, bytes))
      return fail_errno(error, "cannot write the L1 table");
  }
  return {};
}

// New refcounts behind everything else; then the header names them.
Result<> Check::rebuild() {
  const uint64_t per_block = header_.refcounts_per_block();
  uint64_t start = divide_up(file_bytes_, cluster_size());
  std::set<uint64_t> numbers;
  bool too_many = false;
  counts_.for_each([&](uint64_t cluster, uint64_t count) {
    numbers.insert(cluster / per_block);
    start = std::max(start, cluster + 1);
    too_many = too_many || count > header_.max_refcount();
  });
  if (too_many) return fail("a cluster has more references than can be counted in this image; convert the image");
  uint64_t table_clusters = 1, before = 0;
  do {
    before = numbers.size() + table_clusters;
    const uint64_t end = start + table_clusters + numbers.size();
    for (uint64_t number = start / per_block; number <= (end - 1) / per_block; ++number) numbers.insert(number);
    table_clusters = divide_up((*numbers.rbegin() + 1) * 8, cluster_size());
  } while (numbers.size() + table_clusters != before);
  if (table_clusters * cluster_size() > max_refcount_table_bytes) return fail("the image is too large to be mended");
  for (uint64_t i = 0; i < table_clusters + numbers.size(); ++i) counts_.add(start + i);

  std::vector<uint8_t> table(table_clusters * cluster_size());
  uint64_t place = (start + table_clusters) * cluster_size();
  for (const uint64_t number : numbers) {
    std::vector<uint8_t> block(cluster_size());
    for (uint64_t i = 0; i < per_block; ++i) {
      const uint64_t count = counts_.get(number * per_block + i);
      if (count != 0) set_refcount(block, header_.refcount_order, i, count);
    }
    if (const int error = write_at(fd_, place, block)) return fail_errno(error, "cannot write a refcount block");
    store<uint64_t>(&table[number * 8], place);
    place += cluster_size();
  }
  int error = write_at(fd_, start * cluster_size(), table);
  if (error == 0) error = sync_data(fd_);
  std::array<uint8_t, 12> field{};
  store<uint64_t>(field.data(), start * cluster_size());
  store<uint32_t>(&field[8], static_cast<uint32_t>(table_clusters));
  if (error == 0) error = write_at(fd_, at::refcount_table, field);
  if (error != 0) return fail_errno(error, "cannot write the refcount table");
  return {};
}

Result<> Check::finish() {
  int error = sync_data(fd_);
  if (error == 0 && header_.version == 3 && (header_.incompatible & (incompatible_dirty | incompatible_corrupt)) != 0) {
    std::array<uint8_t, 8> bits{};
    store<uint64_t>(bits.data(), header_.incompatible & ~(incompatible_dirty | incompatible_corrupt));
    error = write_at(fd_, at::incompatible, bits);
    if (error == 0) error = sync_data(fd_);
  }
  if (error != 0) return fail_errno(error, "cannot write the image");
  return {};
}

Result<CheckReport> Check::run() {
  if (const int error = file_size(fd_, file_bytes_)) return fail_errno(error, "cannot read its size");
  report_.disk_clusters = divide_up(header_.size, cluster_size());
  refer(counts_, 0, 1, "the header");
  size_t snapshot_bytes = 0;
  auto snapshots = read_snapshots(fd_, header_, snapshot_bytes);
  if (!snapshots) return std::unexpected(snapshots.error());
  refer(counts_, header_.snapshots_offset, snapshot_bytes, "the snapshot table");
  if (auto ok = walk_l1(header_.l1_offset, header_.l1_size, true); !ok) return std::unexpected(ok.error());
  for (const Snapshot& snapshot : *snapshots) {
    if (auto ok = walk_l1(snapshot.l1_offset, snapshot.l1_size, false); !ok) return std::unexpected(ok.error());
  }
  if (auto ok = walk_bitmaps(); !ok) return std::unexpected(ok.error());
  if (auto ok = walk_refcount_table(); !ok) return std::unexpected(ok.error());
  const uint64_t beyond_mending = report_.corruptions;
  if (auto ok = compare(); !ok) return std::unexpected(ok.error());
  if (auto ok = check_copied(); !ok) return std::unexpected(ok.error());
  if (!mend_) {
    report_.fixed_corruptions = 0;
    return report_;
  }
  if (must_rebuild_) {
    if (auto ok = rebuild(); !ok) return std::unexpected(ok.error());
  }
  report_.fixed_leaks = std::exchange(report_.leaks, 0);
  report_.fixed_corruptions = report_.corruptions - beyond_mending;
  report_.corruptions = beyond_mending;
  if (beyond_mending == 0) {
    if (auto ok = finish(); !ok) return std::unexpected(ok.error());
  }
  return report_;
}

Result<CheckReport> run_check(int fd, bool mend, const CheckProgress& progress) {
  auto header = read_header(fd);
  if (!header) return std::unexpected(header.error());
  return Check{fd, std::move(*header), mend, progress}.run();
}

}  // namespace

Result<CheckReport> check(int fd, const CheckProgress& progress) { return run_check(fd, false, progress); }

Result<CheckReport> repair(int fd, const CheckProgress& progress) {
  auto report = run_check(fd, true, progress);
  // Refcounts that pointed nowhere are mended by new ones; so look again.
  if (!report || report->corruptions == 0) return report;
  auto again = run_check(fd, true, progress);
  if (!again) return again;
  again->fixed_corruptions += report->fixed_corruptions;
  again->fixed_leaks += report->fixed_leaks;
  return again;
}

Result<> repair_refcounts(int fd) {
  const auto report = repair(fd);
  if (!report) return std::unexpected(report.error());
  if (report->clean()) return {};
  return fail("it is damaged, and not all could be mended ({}); see 'caisson disk check'",
              report->messages.empty() ? "no details" : report->messages.front());
}

}  // namespace caisson::qcow2
