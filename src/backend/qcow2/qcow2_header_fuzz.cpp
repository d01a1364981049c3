// libFuzzer entry: the header, its extensions and the snapshot table of an image.
#include <cstddef>
#include <cstdint>

#include "backend/qcow2/header.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace caisson::qcow2;
  const std::span bytes{data, size};
  const auto header = parse_header(bytes);
  if (!header) {
    CAISSON_CHECK(header.error().message.find('\n') == std::string::npos);
    return 0;
  }
  CAISSON_CHECK(header->cluster_bits >= min_cluster_bits && header->cluster_bits <= max_cluster_bits);
  CAISSON_CHECK(header->l1_entries_for(header->size) <= header->l1_size);
  CAISSON_CHECK(uint64_t{header->l1_size} * 8 <= max_l1_bytes);
  CAISSON_CHECK(!header->backing_file || header->backing_file->size() <= max_backing_name);
  // The table of snapshots may be anywhere; here it follows the header.
  size_t used = 0;
  const auto snapshots = parse_snapshots(*header, bytes.subspan(header->header_length), used);
  CAISSON_CHECK(!snapshots || used <= size - header->header_length);
  // What is written for the same values says the same.
  if (const auto again = serialise(*header)) {
    const auto parsed = parse_header(*again);
    const bool simple = header->snapshot_count == 0 && header->incompatible == 0;
    CAISSON_CHECK(!simple || (parsed && parsed->size == header->size && parsed->backing_file == header->backing_file &&
                              parsed->refcount_order == header->refcount_order));
  }
  return 0;
}
