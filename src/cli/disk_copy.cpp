#include "cli/disk_copy.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include <unistd.h>

#include "backend/qcow2/create.h"
#include "backend/qcow2/file_io.h"
#include "backend/qcow2/image.h"

namespace caisson::cli {
namespace {

constexpr uint64_t piece = uint64_t{2} << 20;
constexpr uint64_t grain = uint64_t{64} << 10;  // zeroes of this size become holes

bool all_zero(const uint8_t* bytes, uint64_t size) {
  return bytes[0] == 0 && std::memcmp(bytes, bytes + 1, size - 1) == 0;
}

using Write = std::function<int(uint64_t offset, uint64_t length, uint8_t* bytes)>;

// What of it is not zeroes.
int write_data(const Write& write, uint64_t offset, std::vector<uint8_t>& bytes, uint64_t length) {
  for (uint64_t at = 0; at < length;) {
    uint64_t end = at;
    while (end < length && !all_zero(&bytes[end], std::min(grain, length - end))) end = std::min(end + grain, length);
    if (end > at) {
      if (const int error = write(offset + at, end - at, &bytes[at])) return error;
    }
    at = std::min(end + grain, length);
  }
  return 0;
}

}  // namespace

Result<> copy_disk(qcow2::Source& from, Fd to, const std::string& name, const CopyOptions& options) {
  const uint64_t total = qcow2::round_up(from.size(), 512);
  std::unique_ptr<qcow2::Image> image;
  Write write;
  const int fd = to.get();
  if (options.format == DiskFormat::Qcow2) {
    if (auto ok = qcow2::create(fd, {.size = total, .cluster_bits = options.cluster_bits}); !ok) {
      return with_context("disk " + name, ok.error());
    }
    auto opened = qcow2::Image::open(std::move(to), {.name = name});
    if (!opened) return std::unexpected(opened.error());
    image = std::move(*opened);
    write = [&](uint64_t offset, uint64_t length, uint8_t* bytes) {
      return image->write(offset, length, {{bytes, length}});
    };
  } else {
    if (::ftruncate(fd, static_cast<off_t>(total)) != 0) return fail_errno(errno, "cannot make disk " + name);
    write = [&](uint64_t offset, uint64_t length, uint8_t* bytes) {
      return qcow2::write_at(fd, offset, std::span<const uint8_t>{bytes, length});
    };
  }
  std::vector<uint8_t> bytes(piece);
  for (uint64_t offset = 0; offset < from.size();) {
    qcow2::Extent extent;
    if (const int error = from.extent(offset, from.size() - offset, extent))
      return fail_errno(error, "cannot read the disk");
    if (extent.content == qcow2::Content::Zero) {
      offset += extent.length;
    } else {
      const uint64_t length = std::min(extent.length, piece);
      // Whole sectors, where the disk's size is none.
      const uint64_t padded = qcow2::round_up(length, 512);
      std::fill(bytes.begin() + static_cast<ptrdiff_t>(length), bytes.begin() + static_cast<ptrdiff_t>(padded),
                uint8_t{0});
      if (const int error = from.read(offset, length, {{bytes.data(), length}}))
        return fail_errno(error, "cannot read the disk");
      if (const int error = write_data(write, offset, bytes, padded))
        return fail_errno(error, "cannot write disk " + name);
      offset += length;
    }
    if (options.progress) options.progress(offset, from.size());
  }
  const int error = image != nullptr ? image->flush() : (::fsync(fd) == 0 ? 0 : errno);
  if (error != 0) return fail_errno(error, "cannot write disk " + name);
  return {};
}

}  // namespace caisson::cli
