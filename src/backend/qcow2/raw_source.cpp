#include "backend/qcow2/raw_source.h"

#include <algorithm>
#include <cerrno>

#include <unistd.h>

#include "backend/disk_io.h"
#include "backend/qcow2/file_io.h"

namespace caisson::qcow2 {

Result<std::unique_ptr<RawSource>> RawSource::open(Fd fd, const std::string& name) {
  const auto size = size_of_disk(fd.get(), name);
  if (!size) return std::unexpected(size.error());
  return std::unique_ptr<RawSource>(new RawSource(std::move(fd), size->bytes));
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
