// Something with a disk's content to be read: a layer of a chain of images.
//   Errors   0 or an errno value
//   Threads  any, at the same time
#pragma once

#include <cstdint>
#include <vector>

#include <sys/uio.h>

namespace caisson::qcow2 {

enum class Content : uint8_t { Data, Zero, Compressed };

// A part of a disk with one kind of content.
struct Extent {
  Content content = Content::Zero;
  uint64_t length = 0;
  int depth = 0;             // 0: in this image, 1: in its backing file, …; of zeroes: where that is said
  bool present = false;      // a layer says what is here; else it is zero because none does
  uint64_t host_offset = 0;  // of data: in that layer's file
};

// Where a piece of a disk can be read without asking any table again.
struct Piece {
  int fd = -1;  // -1: zeroes
  uint64_t offset = 0;
  uint64_t length = 0;
};

class Source {
 public:
  virtual ~Source() = default;

  [[nodiscard]] virtual uint64_t size() const = 0;  // in bytes
  // The range is inside size(). Blocks.
  [[nodiscard]] virtual int read(uint64_t offset, uint64_t length, const std::vector<iovec>& buffers) = 0;
  // What begins at `offset`, at most `length` bytes of it. Blocks.
  [[nodiscard]] virtual int extent(uint64_t offset, uint64_t length, Extent& found) = 0;
  // Where the range is, appended to `pieces`, when that is known without waiting for anything.
  [[nodiscard]] virtual bool try_locate(uint64_t offset, uint64_t length, std::vector<Piece>& pieces) = 0;
};

}  // namespace caisson::qcow2
