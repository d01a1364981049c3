// What a disk device asks of the host: asynchronous access to one image or block device.
//   Threads  every call comes with the device lock held (from a vCPU thread or the event loop's thread).
//            Completions run on the event loop's thread with the device lock held, never inside submit(); but drain()
//            and end_batch() deliver some on the caller's thread before they return.
//   Order    requests may complete in any order; each completes exactly once. A Flush covers every write that had
//            completed before the flush was submitted.
//   Checks   the device has checked: offset and length are multiples of 512 and inside size(); the backend checks again
//            and answers EINVAL rather than trust it.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include <sys/uio.h>

#include "base/result.h"

namespace caisson {

enum class BlockOp : uint8_t { Read, Write, Flush, Discard, WriteZeroes };

struct BlockRequest {
  BlockOp op = BlockOp::Read;
  bool may_unmap = false;  // WriteZeroes: the range may be deallocated if it reads as zeroes afterwards
  uint64_t offset = 0;     // in bytes; 0 for Flush
  uint64_t length = 0;     // in bytes; for Read and Write the sum of `buffers`; 0 for Flush
  std::vector<iovec>
      buffers{};  // Read, Write: host memory that stays mapped until completion; any number and alignment
  // 0 or an errno value (positive). A short read or write is the backend's to continue; past the end of a file reads
  // give zeroes.
  std::function<void(int error)> done{};
};

class BlockBackend {
 public:
  virtual ~BlockBackend() = default;

  [[nodiscard]] virtual uint64_t size() const = 0;  // in bytes, a multiple of 512
  [[nodiscard]] virtual bool read_only() const = 0;
  [[nodiscard]] virtual unsigned block_size() const = 0;  // natural unit in bytes: a power of two from 512 to 4096
  [[nodiscard]] virtual std::string_view id() const = 0;  // for the guest's serial number; at most 20 bytes are used

  // Starts a request. Never blocks for the disk, never calls `done` itself; errors come through `done`.
  virtual void submit(BlockRequest request) = 0;

  // Around several submit() in a row, such as those that one kick of a queue leads to: they may go to the host
  // together, and what the host does without waiting (its page cache has it) completes in end_batch(), without a way
  // through the event loop. They do not nest; no completion runs, and drain() is not called, between them.
  virtual void begin_batch() {}
  virtual void end_batch() {}

  // Waits until nothing is in flight, calling the outstanding completions on this thread before it returns. A
  // completion may submit nothing new while draining.
  virtual void drain() = 0;

  // Makes the disk larger; what is new reads as zeroes. `bytes`: a multiple of 512, not less than size(). Nothing is in
  // flight. The error is one line without the disk's name.
  [[nodiscard]] virtual Result<> grow(uint64_t bytes) {
    (void)bytes;
    return fail("this disk cannot grow while a machine has it");
  }
};

}  // namespace caisson
