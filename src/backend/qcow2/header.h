// The header of a qcow2 image, its extensions and the table of internal snapshots: from bytes to checked values.
//   Checks   the bytes are untrusted: every size is bounded, nothing overflows, tables overlap neither each other nor
//            the header. What this code cannot do (encryption, external data files, 16-byte L2 entries, bits it does
//            not know) is an error of one line.
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/qcow2/layout.h"
#include "base/result.h"

namespace caisson::qcow2 {

enum class Compression : uint8_t { Zlib = 0, Zstd = 1 };

struct Bitmaps {  // [Bitmaps extension]
  uint32_t count = 0;
  uint64_t directory_size = 0;
  uint64_t directory_offset = 0;
};

struct Header {
  uint32_t version = 3;
  unsigned cluster_bits = 16;
  uint64_t size = 0;  // of the disk in bytes
  uint32_t l1_size = 0;
  uint64_t l1_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshot_count = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible = 0;
  uint64_t compatible = 0;
  uint64_t autoclear = 0;
  unsigned refcount_order = 4;  // a refcount has 1 << this bits
  uint32_t header_length = header_size_v3;
  Compression compression = Compression::Zlib;
  std::optional<std::string> backing_file;  // as stored: relative to the folder of the image
  std::string backing_format;               // empty: not said
  std::optional<Bitmaps> bitmaps;

  [[nodiscard]] uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  [[nodiscard]] uint64_t l2_entries() const { return cluster_size() / 8; }
  [[nodiscard]] uint64_t refcounts_per_block() const { return cluster_size() * 8 >> refcount_order; }
  [[nodiscard]] uint64_t refcount_table_entries() const { return refcount_table_clusters * (cluster_size() / 8); }
  [[nodiscard]] uint64_t max_refcount() const {
    return refcount_order == 6 ? UINT64_MAX : (uint64_t{1} << (1u << refcount_order)) - 1;
  }
  // L1 entries that a disk of `bytes` needs.
  [[nodiscard]] uint64_t l1_entries_for(uint64_t bytes) const {
    return divide_up(divide_up(bytes, cluster_size()), l2_entries());
  }
};

struct Snapshot {
  std::string id;
  std::string name;
  uint64_t l1_offset = 0;
  uint32_t l1_size = 0;
  uint64_t disk_size = 0;  // in bytes
  uint32_t date_s = 0;     // since 1970
  uint64_t vm_state_size = 0;
};

// `bytes`: the first cluster of the file, or all of a shorter file; more does not hurt. Two megabytes always suffice.
[[nodiscard]] Result<Header> parse_header(std::span<const uint8_t> bytes);
// Does the file begin as a qcow2 image does?
[[nodiscard]] bool has_magic(std::span<const uint8_t> bytes);
// `bytes`: from header.snapshots_offset on; `used`: how many of them the table has.
[[nodiscard]] Result<std::vector<Snapshot>> parse_snapshots(const Header& header, std::span<const uint8_t> bytes,
                                                            size_t& used);

// The first cluster of a new image: header, extensions, backing name.
[[nodiscard]] Result<std::vector<uint8_t>> serialise(const Header& header);

}  // namespace caisson::qcow2
