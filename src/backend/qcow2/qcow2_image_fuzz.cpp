// libFuzzer entry: whole images. The input is an image, or an image of ours with pieces of the input written over it;
// then requests as a guest makes them, a check, and a repair.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

#include "backend/qcow2/check.h"
#include "backend/qcow2/create.h"
#include "backend/qcow2/file_io.h"
#include "backend/qcow2/image.h"
#include "base/check.h"
#include "base/log.h"

namespace {

using namespace caisson;
using namespace caisson::qcow2;

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint64_t number(unsigned bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) value = value << 8 | (size_ > 0 ? (--size_, *data_++) : 0);
    return value;
  }
  std::span<const uint8_t> bytes(size_t most) {
    const std::span part{data_, std::min(size_, most)};
    data_ += part.size();
    size_ -= part.size();
    return part;
  }
  [[nodiscard]] bool empty() const { return size_ == 0; }

 private:
  const uint8_t* data_;
  size_t size_;
};

Fd memory_file() {
  Fd fd{::memfd_create("image", MFD_CLOEXEC)};
  CAISSON_CHECK(fd.valid());
  return fd;
}

Fd copy_of(const Fd& file) {
  uint64_t size = 0;
  CAISSON_CHECK(file_size(file.get(), size) == 0);
  std::vector<uint8_t> bytes(size);
  CAISSON_CHECK(read_at(file.get(), 0, bytes) == 0);
  Fd copy = memory_file();
  CAISSON_CHECK(write_at(copy.get(), 0, bytes) == 0);
  return copy;
}

// An image with a bit of everything that we can make.
void make_valid(int fd, unsigned shape) {
  constexpr unsigned bits[] = {9, 10, 12, 16};
  CAISSON_CHECK(create(fd, {.size = 40 * 1024, .version = shape % 5 == 0 ? 2u : 3u, .cluster_bits = bits[shape % 4]}));
  auto image = Image::open(Fd{::dup(fd)}, {.name = "made"});
  CAISSON_CHECK(image);
  std::vector<uint8_t> data(4096, 0x5a);
  for (uint64_t at = 0; at < 6; ++at)
    CAISSON_CHECK((*image)->write(at * 5632, data.size(), {{data.data(), data.size()}}) == 0);
  CAISSON_CHECK((*image)->write_zeroes(8192, 2048, true) == 0 && (*image)->write_zeroes(12288, 2048, false) == 0);
  CAISSON_CHECK((*image)->flush() == 0);
}

void use(Fd fd, Input& input, bool read_only) {
  auto image = Image::open(std::move(fd), {.name = "fuzzed", .read_only = read_only, .cache_bytes = 4096});
  if (!image) {
    CAISSON_CHECK(image.error().message.find('\n') == std::string::npos);
    return;
  }
  const uint64_t size = (*image)->size() / 512 * 512;
  std::vector<uint8_t> data(16384, 0xa5);
  for (int step = 0; step < 24 && !input.empty() && size > 0; ++step) {
    const auto what = input.number(1);
    // Near the start, where an image of a few KiB has its clusters; or anywhere.
    const uint64_t offset = (what & 0x80) != 0 ? input.number(8) % size / 512 * 512 : input.number(2) * 512 % size;
    const uint64_t length = std::min({size - offset, (input.number(1) % 32 + 1) * 512, uint64_t{data.size()}});
    const std::vector<iovec> buffers{{data.data(), length}};
    int error = 0;
    switch (what % 7) {
      case 0:
      case 1: error = (*image)->read(offset, length, buffers); break;
      case 2:
      case 3: error = (*image)->write(offset, length, buffers); break;
      case 4: error = (*image)->write_zeroes(offset, length, (what & 0x40) != 0); break;
      case 5: error = (*image)->discard(offset, length); break;
      case 6: error = (*image)->flush(); break;
    }
    CAISSON_CHECK(error >= 0);
    Extent extent;
    if ((*image)->extent(offset, length, extent) == 0) CAISSON_CHECK(extent.length > 0 && extent.length <= length);
    std::vector<Piece> pieces;
    if ((*image)->try_locate(offset, length, pieces)) {
      uint64_t sum = 0;
      for (const Piece& piece : pieces) sum += piece.length;
      CAISSON_CHECK(sum == length);
    }
  }
  (void)(*image)->flush();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level{UINT8_MAX});  // damaged images say so
  Input input{data, size};
  const unsigned shape = static_cast<unsigned>(input.number(1));
  const Fd file = memory_file();
  if (shape % 8 == 7) {
    const auto image = input.bytes(size_t{1} << 16);
    CAISSON_CHECK(write_at(file.get(), 0, image) == 0);
  } else {
    make_valid(file.get(), shape);
    for (auto patches = input.number(1) % 16; patches > 0; --patches) {
      const uint64_t place = input.number(2) * ((patches & 1) != 0 ? 1 : 8) % 65536;
      const auto patch = input.bytes(input.number(1) % 64);
      CAISSON_CHECK(write_at(file.get(), place, patch) == 0);
    }
  }
  {
    Input requests = input;
    use(copy_of(file), requests, true);
  }
  use(copy_of(file), input, false);
  (void)check(file.get());
  const auto mended = repair(file.get());
  // What says that it is mended is so.
  if (mended && mended->clean()) {
    const auto again = check(file.get());
    CAISSON_CHECK(again && again->clean());
  }
  return 0;
}
