#include "backend/disk_io.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

namespace caisson {
namespace {

constexpr uint64_t sector = 512;

bool unsupported(int error) { return error == EOPNOTSUPP || error == ENOTTY || error == ENOSYS || error == EINVAL; }

int transfer(int fd, Job& job) {
  while (job.left > 0) {
    const int count = static_cast<int>(job.buffer_count());
    const off_t offset = static_cast<off_t>(job.offset);
    const bool reading = job.request.op == BlockOp::Read;
    const ssize_t size =
        reading ? ::preadv(fd, job.buffers(), count, offset) : ::pwritev(fd, job.buffers(), count, offset);
    if (size < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      return errno;
    }
    if (size == 0) {
      if (!reading) return EIO;
      job.zero_rest();
      return 0;
    }
    job.advance(static_cast<uint64_t>(size));
  }
  return 0;
}

int allocate(int fd, int mode, const Job& job) {
  int done = 0;
  do {
    done = ::fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(job.offset), static_cast<off_t>(job.left));
  } while (done != 0 && errno == EINTR);
  return done == 0 ? 0 : errno;
}

int discard(int fd, bool block_device, const Job& job) {
  int error = 0;
  if (block_device) {
    std::array<uint64_t, 2> range{job.offset, job.left};
    error = ::ioctl(fd, BLKDISCARD, range.data()) == 0 ? 0 : errno;
  } else {
    error = allocate(fd, FALLOC_FL_PUNCH_HOLE, job);
  }
  return unsupported(error) ? 0 : error;  // a hint only
}

int write_zeroes(int fd, Job& job) {
  // Both work on block devices too, where the kernel makes sure that the range reads as zeroes.
  int error = EOPNOTSUPP;
  if (job.request.may_unmap) error = allocate(fd, FALLOC_FL_PUNCH_HOLE, job);
  if (unsupported(error)) error = allocate(fd, FALLOC_FL_ZERO_RANGE, job);
  if (!unsupported(error)) return error;

  static constexpr std::array<uint8_t, 64 * 1024> zeroes{};
  while (job.left > 0) {
    const ssize_t size =
        ::pwrite(fd, zeroes.data(), std::min<uint64_t>(zeroes.size(), job.left), static_cast<off_t>(job.offset));
    if (size < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      return errno;
    }
    if (size == 0) return EIO;
    job.offset += static_cast<uint64_t>(size);
    job.left -= static_cast<uint64_t>(size);
  }
  return 0;
}

}  // namespace

void fill_zero(std::span<const iovec> buffers) {
  for (const iovec& buffer : buffers) {
    if (buffer.iov_len > 0) std::memset(buffer.iov_base, 0, buffer.iov_len);
  }
}

Result<DiskSize> size_of_disk(int fd, const std::string& name) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "cannot read the size of disk " + name);
  DiskSize size{.bytes = static_cast<uint64_t>(status.st_size),
                .natural = static_cast<unsigned>(std::clamp<long>(status.st_blksize, 512, 4096)),
                .block_device = S_ISBLK(status.st_mode)};
  if (size.block_device) {
    if (::ioctl(fd, BLKGETSIZE64, &size.bytes) != 0 || ::ioctl(fd, BLKPBSZGET, &size.natural) != 0) {
      return fail_errno(errno, "cannot read the size of disk " + name);
    }
    size.natural = std::clamp(size.natural, 512u, 4096u);
  } else if (!S_ISREG(status.st_mode)) {
    return fail("disk {}: is neither a file nor a block device; give one of these", name);
  }
  return size;
}

Result<uint64_t> whole_sectors(uint64_t bytes, const std::string& name) {
  const uint64_t whole = bytes / sector * sector;
  if (whole == 0) return fail("disk {}: has {} bytes, less than one sector; it may be truncated", name, bytes);
  if (whole != bytes) {
    log::warning(
        "disk {}: its size of {} bytes is not a multiple of 512; the last {} bytes are out of the guest's reach", name,
        bytes, bytes - whole);
  }
  return whole;
}

void Job::advance(uint64_t bytes) {
  bytes = std::min(bytes, left);
  offset += bytes;
  left -= bytes;
  while (bytes > 0) {
    iovec& buffer = request.buffers[first_buffer];
    const size_t part = std::min<uint64_t>(bytes, buffer.iov_len);
    buffer.iov_base = static_cast<uint8_t*>(buffer.iov_base) + part;
    buffer.iov_len -= part;
    bytes -= part;
    if (buffer.iov_len == 0) ++first_buffer;
  }
}

void Job::zero_rest() {
  fill_zero(std::span{request.buffers}.subspan(first_buffer));
  left = 0;
}

unsigned Job::buffer_count() const {
  return static_cast<unsigned>(std::min<size_t>(request.buffers.size() - first_buffer, IOV_MAX));
}

int check_request(const BlockRequest& request, uint64_t size, bool read_only) {
  if (request.op == BlockOp::Flush) return request.offset == 0 && request.length == 0 ? 0 : EINVAL;
  if (request.offset % sector != 0 || request.length % sector != 0) return EINVAL;
  if (request.offset > size || request.length > size - request.offset) return EINVAL;
  if (request.op == BlockOp::Read || request.op == BlockOp::Write) {
    uint64_t sum = 0;
    for (const iovec& buffer : request.buffers) {
      if (buffer.iov_len > request.length - sum) return EINVAL;
      sum += buffer.iov_len;
    }
    if (sum != request.length) return EINVAL;
  }
  if (read_only && request.op != BlockOp::Read) return EROFS;
  return 0;
}

int perform(int fd, bool block_device, Job& job) {
  switch (job.request.op) {
    case BlockOp::Read:
    case BlockOp::Write: return transfer(fd, job);
    case BlockOp::Flush: return ::fdatasync(fd) == 0 ? 0 : errno;
    case BlockOp::Discard: return discard(fd, block_device, job);
    case BlockOp::WriteZeroes: return write_zeroes(fd, job);
  }
  return EINVAL;
}

}  // namespace caisson
