#include "backend/qcow2/raw_source.h"

#include <algorithm>
#include <cerrno>

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/qcow2/file_io.h"

namespace caisson::qcow2 {

Result<std::unique_ptr<RawSource>> RawSource::open(Fd fd, const std::string& name) {
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "cannot read the size of disk " + name);
  uint64_t size = static_cast<uint64_t>(status.st_size);
  if (S_ISBLK(status.st_mode)) {
    if (::ioctl(fd.get(), BLKGETSIZE64, &size) != 0) return fail_errno(errno, "cannot read the size of disk " + name);
  } else if (!S_ISREG(status.st_mode)) {
    return fail("disk {}: is neither a file nor a block device; give one of these", name);
  }
  return std::unique_ptr<RawSource>(new RawSource(std::move(fd), size));
}

int RawSource::read(uint64_t offset, uint64_t, const std::vector<iovec>& buffers) {
  return read_at(fd_.get(), offset, buffers);
}

int RawSource::extent(uint64_t offset, uint64_t length, Extent& found) {
  found = {.content = Content::Data, .length = length, .present = true, .host_offset = offset};
  const off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 && errno == ENXIO) {
    found.content = Content::Zero;  // to the end
    return 0;
  }
  if (data < 0) return 0;  // cannot say: all is data
  if (static_cast<uint64_t>(data) > offset) {
    found.content = Content::Zero;
    found.length = std::min(length, static_cast<uint64_t>(data) - offset);
    return 0;
  }
  const off_t hole = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_HOLE);
  if (hole > data) found.length = std::min(length, static_cast<uint64_t>(hole) - offset);
  return 0;
}

bool RawSource::try_locate(uint64_t offset, uint64_t length, std::vector<Piece>& pieces) {
  pieces.push_back({fd_.get(), offset, length});
  return true;
}

}  // namespace caisson::qcow2
