// Opening an image: what is read and checked before the first request.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "backend/qcow2/check.h"
#include "backend/qcow2/file_io.h"
#include "backend/qcow2/image.h"
#include "base/log.h"

namespace caisson::qcow2 {

Result<Header> read_header(int fd) {
  uint64_t size = 0;
  if (const int error = file_size(fd, size)) return fail_errno(error, "cannot read its size");
  std::vector<uint8_t> bytes(std::min<uint64_t>(size, header_size_v2));
  if (const int error = read_at(fd, 0, bytes)) return fail_errno(error, "cannot read its header");
  if (bytes.size() == header_size_v2) {
    const uint32_t bits = std::min(load<uint32_t>(&bytes[at::cluster_bits]), uint32_t{max_cluster_bits});
    bytes.resize(std::min<uint64_t>(size, std::max(uint64_t{1} << bits, uint64_t{header_size_v2})));
    if (const int error = read_at(fd, 0, bytes)) return fail_errno(error, "cannot read its header");
  }
  return parse_header(bytes);
}

Result<std::vector<Snapshot>> read_snapshots(int fd, const Header& header, size_t& used) {
  used = 0;
  if (header.snapshot_count == 0) return std::vector<Snapshot>{};
  uint64_t size = 0;
  if (const int error = file_size(fd, size)) return fail_errno(error, "cannot read its size");
  if (header.snapshots_offset >= size) return fail("its snapshot table lies beyond its end; the image is truncated");
  std::vector<uint8_t> bytes(std::min(size - header.snapshots_offset, max_snapshot_table_bytes));
  if (const int error = read_at(fd, header.snapshots_offset, bytes)) {
    return fail_errno(error, "cannot read its snapshot table");
  }
  return parse_snapshots(header, bytes, used);
}

Result<std::unique_ptr<Image>> Image::open(Fd fd, OpenOptions options) {
  const std::string where = "disk " + options.name;
  auto image = std::unique_ptr<Image>(new Image(std::move(fd), std::move(options)));
  if (auto ok = image->open_tables(); !ok) return with_context(where, ok.error());
  return image;
}

Image::~Image() = default;

Result<> Image::open_tables() {
  auto header = read_header(fd_.get());
  if (!header) return std::unexpected(header.error());
  header_ = std::move(*header);
  if ((header_.incompatible & incompatible_corrupt) != 0 && !(options_.read_only && options_.allow_corrupt)) {
    return fail("it is marked as damaged; save what is in it with 'caisson disk check --repair {}'", options_.name);
  }
  if (header_.backing_file && options_.backing == nullptr) {
    return fail("its backing file {} was not given", *header_.backing_file);
  }
  if (!header_.backing_file && options_.backing != nullptr) return fail("it has no backing file, but one was given");
  if (!options_.read_only && (header_.incompatible & incompatible_dirty) != 0) {
    log::warning("disk {}: was not closed well; counting its clusters anew", options_.name);
    if (auto ok = repair_refcounts(fd_.get()); !ok) return std::unexpected(ok.error());
    header = read_header(fd_.get());
    if (!header) return std::unexpected(header.error());
    header_ = std::move(*header);
  }
  if (auto ok = open_snapshots(); !ok) return ok;
  size_ = header_.size;
  uint64_t l1_offset = header_.l1_offset, l1_entries = header_.l1_size;
  if (!options_.snapshot.empty()) {
    const auto found = std::ranges::find_if(snapshots_, [&](const Snapshot& snapshot) {
      return snapshot.name == options_.snapshot || snapshot.id == options_.snapshot;
    });
    if (found == snapshots_.end())
      return fail("it has no snapshot {}; 'caisson disk info' lists them", options_.snapshot);
    if (!options_.read_only) return fail("a snapshot can only be read");
    size_ = found->disk_size;
    l1_offset = found->l1_offset;
    l1_entries = found->l1_size;
    if (size_ > uint64_t{1} << 62 || header_.l1_entries_for(size_) > l1_entries) {
      return fail("the L1 table of snapshot {} is too small; the image is damaged", options_.snapshot);
    }
  }
  if (auto ok = read_l1(l1_offset, l1_entries); !ok) return ok;
  l2_ =
      std::make_unique<TableCache>(std::max(options_.cache_bytes, 4 * header_.cluster_size()), header_.cluster_size());
  return options_.read_only ? Result<>{} : prepare_for_writing();
}

Result<> Image::open_snapshots() {
  size_t used = 0;
  auto snapshots = read_snapshots(fd_.get(), header_, used);
  if (!snapshots) return std::unexpected(snapshots.error());
  snapshots_ = std::move(*snapshots);
  if (options_.read_only) return {};
  constexpr size_t most_clusters = size_t{1} << 22;  // with tables; far more than any image has, little enough to hold
  const auto own = [this](uint64_t offset, uint64_t bytes) {
    if (bytes / header_.cluster_size() + metadata_.size() > most_clusters) return false;
    for (uint64_t cluster = cluster_of(offset); cluster < divide_up(offset + bytes, header_.cluster_size());
         ++cluster) {
      if (!metadata_.insert(cluster).second) return false;
    }
    return true;
  };
  bool apart = own(0, 1) && own(header_.l1_offset, uint64_t{header_.l1_size} * 8) &&
               own(header_.refcount_table_offset, header_.refcount_table_clusters * header_.cluster_size());
  if (used > 0) apart = apart && own(header_.snapshots_offset, used);
  for (const Snapshot& snapshot : snapshots_) {
    apart = apart && own(snapshot.l1_offset, uint64_t{snapshot.l1_size} * 8);
  }
  if (!apart) return fail("its snapshots' tables lie over others, or are too many; the image is damaged");
  return {};
}

Result<> Image::read_l1(uint64_t offset, uint64_t entries) {
  std::vector<uint8_t> bytes(entries * 8);
  if (const int error = read_at(fd_.get(), offset, bytes)) return fail_errno(error, "cannot read its L1 table");
  l1_.resize(entries);
  for (size_t i = 0; i < entries; ++i) l1_[i] = load<uint64_t>(&bytes[i * 8]);
  return {};
}

Result<> Image::prepare_for_writing() {
  constexpr uint64_t refcount_cache_bytes = uint64_t{8} << 20;
  refcounts_ = std::make_unique<Refcounts>(fd_.get(), header_, metadata_,
                                           std::max(refcount_cache_bytes, 4 * header_.cluster_size()));
  if (const int error = refcounts_->open()) {
    if (!refcounts_->damage.empty()) return fail("{}; the image is damaged", refcounts_->damage);
    return fail_errno(error, "cannot read its refcount table");
  }
  for (size_t i = 0; i < l1_.size(); ++i) {
    const uint64_t offset = l1_[i] & offset_mask;
    if (offset != 0 && (in_cluster(offset) != 0 || !metadata_.insert(cluster_of(offset)).second)) {
      return fail("L2 table {} at byte {} lies over another table; the image is damaged: see 'caisson disk check {}'",
                  i, offset, options_.name);
    }
  }
  // [Header, autoclear_features] Bitmaps and the like will not be kept up to date.
  if (header_.version == 3 && header_.autoclear != 0) {
    header_.autoclear = 0;
    const std::array<uint8_t, 8> zero{};
    if (const int error = write_at(fd_.get(), at::autoclear, zero)) return fail_errno(error, "cannot write its header");
  }
  return {};
}

}  // namespace caisson::qcow2
