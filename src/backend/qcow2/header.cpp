#include "backend/qcow2/header.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace caisson::qcow2 {
namespace {

// Bytes [begin, end) of the file.
struct Range {
  uint64_t begin;
  uint64_t end;
  std::string_view what;
};

Result<> check_overlaps(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin < ranges[i - 1].end) {
      return fail("its {} lies over its {}; the image is damaged", ranges[i].what, ranges[i - 1].what);
    }
  }
  return {};
}

Result<> check_place(std::string_view what, uint64_t offset, uint64_t bytes, uint64_t most, uint64_t cluster_size) {
  if (bytes > most) return fail("its {} would take {} bytes; the image is damaged", what, bytes);
  if (offset % cluster_size != 0 || offset > max_host_offset - most || (bytes > 0 && offset == 0)) {
    return fail("its {} is at byte {}, where none can be; the image is damaged", what, offset);
  }
  return {};
}

Result<> check_features(const Header& header) {
  const uint64_t bits = header.incompatible;
  if ((bits & incompatible_data_file) != 0) {
    return fail("it keeps its data in another file; convert it with 'qemu-img convert -O qcow2'");
  }
  if ((bits & incompatible_extended_l2) != 0) {
    return fail("it has extended L2 entries; convert it with 'qemu-img convert -O qcow2 -o extended_l2=off'");
  }
  constexpr uint64_t known = incompatible_dirty | incompatible_corrupt | incompatible_compression;
  if ((bits & ~known) != 0) {
    return fail("it has a feature that is not known here (incompatible bit {}); convert it with 'qemu-img convert'",
                std::countr_zero(bits & ~known));
  }
  return {};
}

Result<> parse_extensions(std::span<const uint8_t> bytes, uint64_t end, Header& header) {
  uint64_t at = header.header_length;
  while (at + 8 <= end) {
    const uint32_t type = load<uint32_t>(&bytes[at]);
    const uint32_t length = load<uint32_t>(&bytes[at + 4]);
    at += 8;
    if (type == extension_end) return {};
    if (length > end - at) return fail("a header extension does not fit into the header; the image is damaged");
    const std::span data = bytes.subspan(at, length);
    if (type == extension_backing_format) {
      if (length > 16) return fail("the name of its backing file's format is too long; the image is damaged");
      header.backing_format.assign(data.begin(), data.end());
    } else if (type == extension_bitmaps && (header.autoclear & autoclear_bitmaps) != 0) {
      if (length < 24) return fail("its bitmaps extension is too short; the image is damaged");
      header.bitmaps =
          Bitmaps{load<uint32_t>(data.data()), load<uint64_t>(data.data() + 8), load<uint64_t>(data.data() + 16)};
    }
    at += round_up(length, 8);
  }
  return {};
}

Result<> parse_backing(std::span<const uint8_t> bytes, Header& header) {
  const uint64_t offset = load<uint64_t>(&bytes[at::backing_offset]);
  const uint32_t length = load<uint32_t>(&bytes[at::backing_size]);
  if (offset == 0 || length == 0) return {};
  if (length > max_backing_name) return fail("the name of its backing file is too long; the image is damaged");
  const uint64_t cluster = std::min<uint64_t>(bytes.size(), header.cluster_size());
  if (offset > cluster || length > cluster - offset || offset < header.header_length) {
    return fail("the name of its backing file is outside the header; the image is damaged");
  }
  const std::span name = bytes.subspan(offset, length);
  if (std::ranges::any_of(name, [](uint8_t c) { return c < 0x20 || c == 0x7f; })) {
    return fail("the name of its backing file has control characters; the image is damaged");
  }
  header.backing_file = std::string{name.begin(), name.end()};
  return {};
}

}  // namespace

bool has_magic(std::span<const uint8_t> bytes) { return bytes.size() >= 4 && load<uint32_t>(bytes.data()) == magic; }

Result<Header> parse_header(std::span<const uint8_t> bytes) {
  if (!has_magic(bytes)) return fail("it does not begin as a qcow2 image does");
  if (bytes.size() < header_size_v2) return fail("it ends within the header; it is truncated");
  Header header;
  header.version = load<uint32_t>(&bytes[at::version]);
  if (header.version != 2 && header.version != 3) {
    return fail("it has version {} of the format; 2 and 3 are known here", header.version);
  }
  header.cluster_bits = load<uint32_t>(&bytes[at::cluster_bits]);
  if (header.cluster_bits < min_cluster_bits || header.cluster_bits > max_cluster_bits) {
    return fail("its clusters would have 2^{} bytes; the image is damaged", header.cluster_bits);
  }
  const uint64_t cluster_size = header.cluster_size();
  header.size = load<uint64_t>(&bytes[at::size]);
  header.l1_size = load<uint32_t>(&bytes[at::l1_size]);
  header.l1_offset = load<uint64_t>(&bytes[at::l1_offset]);
  header.refcount_table_offset = load<uint64_t>(&bytes[at::refcount_table]);
  header.refcount_table_clusters = load<uint32_t>(&bytes[at::refcount_table_clusters]);
  header.snapshot_count = load<uint32_t>(&bytes[at::snapshot_count]);
  header.snapshots_offset = load<uint64_t>(&bytes[at::snapshots]);
  header.header_length = header_size_v2;
  if (load<uint32_t>(&bytes[at::crypt]) != 0) return fail("it is encrypted, which is not supported");
  if (header.version == 3) {
    if (bytes.size() < header_size_v3) return fail("it ends within the header; it is truncated");
    header.incompatible = load<uint64_t>(&bytes[at::incompatible]);
    header.compatible = load<uint64_t>(&bytes[at::compatible]);
    header.autoclear = load<uint64_t>(&bytes[at::autoclear]);
    header.refcount_order = load<uint32_t>(&bytes[at::refcount_order]);
    header.header_length = load<uint32_t>(&bytes[at::header_length]);
    if (auto ok = check_features(header); !ok) return std::unexpected(ok.error());
    if (header.refcount_order > 6)
      return fail("its refcounts would have 2^{} bits; the image is damaged", header.refcount_order);
    const uint32_t length = header.header_length;
    if (length < header_size_v3 || length > cluster_size || length > bytes.size() || length % 8 != 0) {
      return fail("its header would have {} bytes; the image is damaged", length);
    }
    if (length > at::compression) {
      const uint8_t type = bytes[at::compression];
      if (type > 1) return fail("its clusters are compressed in a way that is not known here ({})", type);
      if ((type != 0) != ((header.incompatible & incompatible_compression) != 0)) {
        return fail("its header contradicts itself about compression; the image is damaged");
      }
      header.compression = static_cast<Compression>(type);
    } else if ((header.incompatible & incompatible_compression) != 0) {
      return fail("its header does not say how clusters are compressed; the image is damaged");
    }
  }

  const uint64_t l1_bytes = uint64_t{header.l1_size} * 8;
  const uint64_t refcount_table_bytes = header.refcount_table_clusters * cluster_size;
  if (header.size > uint64_t{1} << 62) return fail("its disk would have {} bytes; the image is damaged", header.size);
  if (header.l1_entries_for(header.size) > header.l1_size) {
    return fail("its L1 table is too small for a disk of {} bytes; the image is damaged", header.size);
  }
  if (auto ok = check_place("L1 table", header.l1_offset, l1_bytes, max_l1_bytes, cluster_size); !ok) {
    return std::unexpected(ok.error());
  }
  if (header.refcount_table_clusters == 0) return fail("it has no refcount table; the image is damaged");
  if (auto ok = check_place("refcount table", header.refcount_table_offset, refcount_table_bytes,
                            max_refcount_table_bytes, cluster_size);
      !ok) {
    return std::unexpected(ok.error());
  }
  std::vector<Range> ranges{
      {0, cluster_size, "header"},
      {header.refcount_table_offset, header.refcount_table_offset + refcount_table_bytes, "refcount table"}};
  if (l1_bytes > 0) {
    ranges.push_back({header.l1_offset, header.l1_offset + round_up(l1_bytes, cluster_size), "L1 table"});
  }
  if (header.snapshot_count > 0) {
    if (header.snapshot_count > max_snapshots) {
      return fail("it would have {} snapshots; the image is damaged", header.snapshot_count);
    }
    if (auto ok = check_place("snapshot table", header.snapshots_offset, 1, max_snapshot_table_bytes, cluster_size);
        !ok) {
      return std::unexpected(ok.error());
    }
    ranges.push_back({header.snapshots_offset, header.snapshots_offset + 1, "snapshot table"});
  }
  if (auto ok = check_overlaps(std::move(ranges)); !ok) return std::unexpected(ok.error());

  if (auto ok = parse_backing(bytes, header); !ok) return std::unexpected(ok.error());
  uint64_t end = std::min<uint64_t>(bytes.size(), cluster_size);
  if (header.backing_file) end = std::min(end, load<uint64_t>(&bytes[at::backing_offset]));
  if (auto ok = parse_extensions(bytes, end, header); !ok) return std::unexpected(ok.error());
  return header;
}

Result<std::vector<Snapshot>> parse_snapshots(const Header& header, std::span<const uint8_t> bytes, size_t& used) {
  constexpr size_t fixed = 40;
  std::vector<Snapshot> snapshots;
  size_t at = 0;
  for (uint32_t i = 0; i < header.snapshot_count; ++i) {
    const auto left = bytes.size() - at;
    if (left < fixed) return fail("its snapshot table ends early; the image is damaged");
    const uint8_t* const entry = &bytes[at];
    Snapshot snapshot;
    snapshot.l1_offset = load<uint64_t>(entry);
    snapshot.l1_size = load<uint32_t>(entry + 8);
    const size_t id_size = load<uint16_t>(entry + 12), name_size = load<uint16_t>(entry + 14);
    snapshot.date_s = load<uint32_t>(entry + 16);
    snapshot.vm_state_size = load<uint32_t>(entry + 32);
    const size_t extra_size = load<uint32_t>(entry + 36);
    if (extra_size > 1024) return fail("a snapshot's extra data are too long; the image is damaged");
    const size_t whole = fixed + extra_size + id_size + name_size;
    if (left < whole) return fail("its snapshot table ends early; the image is damaged");
    if (extra_size >= 8) snapshot.vm_state_size = load<uint64_t>(entry + fixed);
    snapshot.disk_size = extra_size >= 16 ? load<uint64_t>(entry + fixed + 8) : header.size;
    const auto text = reinterpret_cast<const char*>(entry + fixed + extra_size);
    snapshot.id.assign(text, id_size);
    snapshot.name.assign(text + id_size, name_size);
    if (auto ok = check_place("snapshot's L1 table", snapshot.l1_offset, uint64_t{snapshot.l1_size} * 8, max_l1_bytes,
                              header.cluster_size());
        !ok) {
      return std::unexpected(ok.error());
    }
    snapshots.push_back(std::move(snapshot));
    // The padding after the last entry may be missing.
    at = std::min<size_t>(at + round_up(whole, 8), bytes.size());
  }
  used = at;
  return snapshots;
}

Result<std::vector<uint8_t>> serialise(const Header& header) {
  std::vector<uint8_t> bytes(header.cluster_size());
  const bool v3 = header.version == 3;
  const uint32_t header_length = v3 ? uint32_t{112} : header_size_v2;
  store<uint32_t>(&bytes[at::magic], magic);
  store<uint32_t>(&bytes[at::version], header.version);
  store<uint32_t>(&bytes[at::cluster_bits], header.cluster_bits);
  store<uint64_t>(&bytes[at::size], header.size);
  store<uint32_t>(&bytes[at::l1_size], header.l1_size);
  store<uint64_t>(&bytes[at::l1_offset], header.l1_offset);
  store<uint64_t>(&bytes[at::refcount_table], header.refcount_table_offset);
  store<uint32_t>(&bytes[at::refcount_table_clusters], header.refcount_table_clusters);
  if (v3) {
    store<uint64_t>(&bytes[at::incompatible], header.incompatible);
    store<uint64_t>(&bytes[at::compatible], header.compatible);
    store<uint32_t>(&bytes[at::refcount_order], header.refcount_order);
    store<uint32_t>(&bytes[at::header_length], header_length);
    bytes[at::compression] = static_cast<uint8_t>(header.compression);
  }
  size_t end = header_length;
  const size_t room = header.backing_format.size() + 24 + (header.backing_file ? header.backing_file->size() : 0);
  if (end + room > bytes.size()) return fail("the name of the backing file does not fit; use a shorter path");
  if (!header.backing_format.empty()) {
    store<uint32_t>(&bytes[end], extension_backing_format);
    store<uint32_t>(&bytes[end + 4], static_cast<uint32_t>(header.backing_format.size()));
    std::ranges::copy(header.backing_format, &bytes[end + 8]);
    end += 8 + round_up(header.backing_format.size(), 8);
  }
  end += 8;  // the end of the extensions: zeroes
  if (header.backing_file) {
    if (header.backing_file->size() > max_backing_name || end + header.backing_file->size() > bytes.size()) {
      return fail("the name of the backing file is too long; use a shorter path");
    }
    store<uint64_t>(&bytes[at::backing_offset], end);
    store<uint32_t>(&bytes[at::backing_size], static_cast<uint32_t>(header.backing_file->size()));
    std::ranges::copy(*header.backing_file, &bytes[end]);
  }
  return bytes;
}

}  // namespace caisson::qcow2
