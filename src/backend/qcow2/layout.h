// The numbers of the qcow2 format: where header fields are, what the bits of table entries mean.
//   Manual   QEMU's docs/interop/qcow2.txt, "the specification" below; section names in brackets
//   Order    everything on disk is big-endian
//   Threads  constants and pure functions
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace caisson::qcow2 {

template <class T>
[[nodiscard]] inline T load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return std::byteswap(value);
}
template <class T>
inline void store(uint8_t* to, T value) {
  value = std::byteswap(value);
  std::memcpy(to, &value, sizeof value);
}

inline constexpr uint32_t magic = 0x514649fb;  // "QFI\xfb"
inline constexpr unsigned min_cluster_bits = 9, max_cluster_bits = 21;

// [Header] Offsets of the fields.
namespace at {
inline constexpr size_t magic = 0, version = 4, backing_offset = 8, backing_size = 16, cluster_bits = 20, size = 24,
                        crypt = 32, l1_size = 36, l1_offset = 40, refcount_table = 48, refcount_table_clusters = 56,
                        snapshot_count = 60, snapshots = 64, incompatible = 72, compatible = 80, autoclear = 88,
                        refcount_order = 96, header_length = 100, compression = 104;
}  // namespace at
inline constexpr size_t header_size_v2 = 72, header_size_v3 = 104;

// [Header, incompatible_features]
inline constexpr uint64_t incompatible_dirty = 1, incompatible_corrupt = 2, incompatible_data_file = 4,
                          incompatible_compression = 8, incompatible_extended_l2 = 16;
inline constexpr uint64_t compatible_lazy_refcounts = 1;
inline constexpr uint64_t autoclear_bitmaps = 1;

// [Header extensions]
inline constexpr uint32_t extension_end = 0, extension_backing_format = 0xe2792aca, extension_bitmaps = 0x23852875;

// [Cluster mapping] Entries of L1 and L2 tables.
inline constexpr uint64_t offset_mask = 0x00fffffffffffe00;
inline constexpr uint64_t copied_flag = uint64_t{1} << 63;      // the refcount is exactly one
inline constexpr uint64_t compressed_flag = uint64_t{1} << 62;  // L2 only
inline constexpr uint64_t zero_flag = 1;                        // L2 of version 3 only
inline constexpr uint64_t reserved_l1 = ~(offset_mask | copied_flag);

// What an untrusted header may ask for. The specification has no such bounds; QEMU has the same for the tables.
inline constexpr uint64_t max_l1_bytes = uint64_t{32} << 20, max_refcount_table_bytes = uint64_t{8} << 20,
                          max_snapshot_table_bytes = uint64_t{16} << 20;
inline constexpr uint32_t max_snapshots = 65536, max_backing_name = 1023;
inline constexpr uint64_t max_host_offset = offset_mask;

[[nodiscard]] constexpr uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }
[[nodiscard]] constexpr uint64_t divide_up(uint64_t value, uint64_t unit) {
  return value / unit + (value % unit != 0 ? 1 : 0);
}

}  // namespace caisson::qcow2
