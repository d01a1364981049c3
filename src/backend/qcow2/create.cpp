#include "backend/qcow2/create.h"

#include <algorithm>

#include "backend/qcow2/file_io.h"
#include "backend/qcow2/refcount_bits.h"

namespace caisson::qcow2 {

// The header, the refcount table, its blocks, the L1 table; one behind the other.
Result<> create(int fd, const CreateOptions& options) {
  if (options.size % 512 != 0) return fail("a disk has whole sectors of 512 bytes; {} bytes are none", options.size);
  if (options.version != 2 && options.version != 3) return fail("the versions of qcow2 are 2 and 3");
  if (options.cluster_bits < min_cluster_bits || options.cluster_bits > max_cluster_bits) {
    return fail("clusters have 512 bytes to 2M");
  }
  if (options.refcount_order > 6 || (options.version == 2 && options.refcount_order != 4)) {
    return fail("refcounts have 1 to 64 bits, in version 2 always 16");
  }
  Header header;
  header.version = options.version;
  header.cluster_bits = options.cluster_bits;
  header.size = options.size;
  header.refcount_order = options.refcount_order;
  header.backing_file = options.backing_file;
  header.backing_format = options.backing_format;
  const uint64_t cluster_size = header.cluster_size(), per_block = header.refcounts_per_block();
  if (options.size > uint64_t{1} << 62 || header.l1_entries_for(options.size) > max_l1_bytes / 8) {
    return fail("a disk of {} bytes needs larger clusters than {} bytes", options.size, cluster_size);
  }
  header.l1_size = static_cast<uint32_t>(std::max<uint64_t>(header.l1_entries_for(options.size), 1));
  const uint64_t l1_clusters = divide_up(uint64_t{header.l1_size} * 8, cluster_size);
  uint64_t blocks = 1, table_clusters = 1, total = 0;
  for (;;) {
    total = 1 + table_clusters + blocks + l1_clusters;
    const uint64_t blocks_needed = divide_up(total, per_block);
    const uint64_t table_needed = divide_up(blocks_needed * 8, cluster_size);
    if (blocks_needed <= blocks && table_needed <= table_clusters) break;
    blocks = std::max(blocks, blocks_needed);
    table_clusters = std::max(table_clusters, table_needed);
  }
  header.refcount_table_offset = cluster_size;
  header.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
  header.l1_offset = (1 + table_clusters + blocks) * cluster_size;

  auto first = serialise(header);
  if (!first) return std::unexpected(first.error());
  std::vector<uint8_t> tables((total - 1) * cluster_size);
  for (uint64_t i = 0; i < blocks; ++i) {
    store<uint64_t>(&tables[i * 8], (1 + table_clusters + i) * cluster_size);
    const std::span block{&tables[(table_clusters + i) * cluster_size], cluster_size};
    for (uint64_t cluster = i * per_block; cluster < std::min(total, (i + 1) * per_block); ++cluster) {
      set_refcount(block, header.refcount_order, cluster % per_block, 1);
    }
  }
  // The header last: a file without it is no image.
  if (const int error = write_at(fd, cluster_size, tables)) return fail_errno(error, "cannot write the image");
  if (const int error = sync_data(fd)) return fail_errno(error, "cannot write the image");
  if (const int error = write_at(fd, 0, *first)) return fail_errno(error, "cannot write the image");
  if (const int error = sync_data(fd)) return fail_errno(error, "cannot write the image");
  return {};
}

}  // namespace caisson::qcow2
