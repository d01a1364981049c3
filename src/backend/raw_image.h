// A raw disk image, or a block device, as a disk's host side.
//   Models   read and write through the page cache by io_uring, or by a pool of threads where the host has none; flush
//   by
//            fdatasync; discard by punching holes or BLKDISCARD; write zeroes by fallocate, or by writing where the
//            host cannot. A size that is not a multiple of 512 is cut to whole sectors, with a warning.
//   Omits    O_DIRECT
//   Threads  called under the device lock; completions run on the event loop under the same lock, see block_backend.h.
//            Discard, write zeroes and the fallback run on up to four threads of a pool that starts with its first
//            task.
//   Errors   what the host answers, as errno values; EINVAL for a request outside the disk, EROFS for one that would
//            change a read-only disk. A discard that the host cannot do succeeds: it is a hint.
#pragma once

#include <memory>
#include <string>

#include "backend/block_backend.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"

namespace caisson {

struct RawImageOptions {
  std::string name;  // for messages
  std::string id;    // the guest's serial number
  bool read_only = false;
  bool use_io_uring = true;  // false: threads only
};

class RawImage final : public BlockBackend {
 public:
  // `fd` is open for reading, and for writing unless read-only. Call with the guard of `loop` free or held.
  [[nodiscard]] static Result<std::unique_ptr<RawImage>> create(EventLoop& loop, Fd fd, RawImageOptions options);
  // Under the device lock. Waits for what is in flight and drops its completions.
  ~RawImage() override;

  [[nodiscard]] uint64_t size() const override;
  [[nodiscard]] bool read_only() const override;
  [[nodiscard]] unsigned block_size() const override;
  [[nodiscard]] std::string_view id() const override;
  void submit(BlockRequest request) override;
  void begin_batch() override;
  void end_batch() override;
  void drain() override;
  // A block device: to as much as it has itself, at least `bytes`.
  [[nodiscard]] Result<> grow(uint64_t bytes) override;

  [[nodiscard]] bool uses_io_uring() const;

 private:
  struct Impl;
  explicit RawImage(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson
