// Disk operations under way, on any number of descriptors: reads, writes and syncs by io_uring, or by a pool of threads
// where the host has none; whatever else may block by the pool.
//   Threads  every call comes under the device lock; completions run on the event loop's thread under the same lock,
//            never inside a call, but for drain() and end_batch(). Work for the pool runs without the lock.
//   Errors   0 or an errno value, by the completion
#pragma once

#include <functional>
#include <memory>

#include "backend/block_backend.h"
#include "base/event_loop.h"
#include "base/result.h"

namespace caisson {

class DiskQueue {
 public:
  using Done = std::function<void(int error)>;

  [[nodiscard]] static Result<std::unique_ptr<DiskQueue>> create(EventLoop& loop, bool use_io_uring);
  // Waits for what is in flight and drops its completions.
  ~DiskQueue();

  // The descriptor stays open until `request.done` was called. Nothing is checked here.
  void submit(int fd, bool block_device, BlockRequest request);
  // `work` on a thread of the pool; what it answers goes to `done`.
  void run(std::function<int()> work, Done done);
  // Nothing but the completion.
  void complete(int error, Done done);
  // As block_backend.h says.
  void begin_batch();
  void end_batch();
  // Waits until nothing is in flight, calling the completions on this thread.
  void drain();

  [[nodiscard]] bool uses_io_uring() const;

 private:
  struct Impl;
  explicit DiskQueue(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson
