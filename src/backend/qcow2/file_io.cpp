#include "backend/qcow2/file_io.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/disk_io.h"

namespace caisson::qcow2 {
namespace {

int transfer(int fd, BlockOp op, uint64_t offset, std::vector<iovec> buffers) {
  uint64_t length = 0;
  for (const iovec& buffer : buffers) length += buffer.iov_len;
  Job job{BlockRequest{.op = op, .offset = offset, .length = length, .buffers = std::move(buffers)}};
  return perform(fd, false, job);
}

}  // namespace

int read_at(int fd, uint64_t offset, std::vector<iovec> to) {
  return transfer(fd, BlockOp::Read, offset, std::move(to));
}

int read_at(int fd, uint64_t offset, std::span<uint8_t> to) { return read_at(fd, offset, {{to.data(), to.size()}}); }

int write_at(int fd, uint64_t offset, std::vector<iovec> from) {
  return transfer(fd, BlockOp::Write, offset, std::move(from));
}

int write_at(int fd, uint64_t offset, std::span<const uint8_t> from) {
  return write_at(fd, offset, std::vector<iovec>{{const_cast<uint8_t*>(from.data()), from.size()}});
}

int sync_data(int fd) { return ::fdatasync(fd) == 0 ? 0 : errno; }

void punch_hole(int fd, uint64_t offset, uint64_t length) {
  (void)::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(length));
}

int file_size(int fd, uint64_t& size) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return errno;
  size = static_cast<uint64_t>(status.st_size);
  return 0;
}

std::vector<iovec> slice(const std::vector<iovec>& buffers, uint64_t skip, uint64_t length) {
  std::vector<iovec> part;
  for (const iovec& buffer : buffers) {
    if (length == 0) break;
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const uint64_t size = std::min<uint64_t>(buffer.iov_len - skip, length);
    part.push_back({static_cast<uint8_t*>(buffer.iov_base) + skip, size});
    length -= size;
    skip = 0;
  }
  return part;
}

}  // namespace caisson::qcow2
