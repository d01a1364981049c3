// A disk that does no more than so many bytes and operations in a second: what is too much waits, in order.
//   Models   reads, writes and zeroes by their bytes; everything, flushes and discards as well, as an operation
//   Omits    drain(): what it brings to an end it brings at once, whatever the limit
//   Threads  as block_backend.h; a timer of the event loop, under its guard, lets go what has waited
#pragma once

#include <deque>
#include <memory>

#include "backend/block_backend.h"
#include "backend/token_bucket.h"
#include "base/event_loop.h"

namespace caisson {

class LimitedDisk final : public BlockBackend {
 public:
  LimitedDisk(EventLoop& loop, std::unique_ptr<BlockBackend> image);
  // What waits is dropped, as what is in flight.
  ~LimitedDisk() override;

  // From now on, for what waits already, too. With none() nothing waits any more.
  void set_limit(const RateLimit& limit);
  [[nodiscard]] const RateLimit& limit() const { return limit_; }

  [[nodiscard]] uint64_t size() const override { return image_->size(); }
  [[nodiscard]] bool read_only() const override { return image_->read_only(); }
  [[nodiscard]] unsigned block_size() const override { return image_->block_size(); }
  [[nodiscard]] std::string_view id() const override { return image_->id(); }
  void submit(BlockRequest request) override;
  void begin_batch() override { image_->begin_batch(); }
  void end_batch() override { image_->end_batch(); }
  void drain() override;
  [[nodiscard]] Result<> grow(uint64_t bytes) override { return image_->grow(bytes); }

 private:
  void let_go();

  std::unique_ptr<BlockBackend> image_;
  RateLimit limit_;
  RateLimiter limiter_;
  std::deque<BlockRequest> waiting_;
  std::unique_ptr<EventLoop::Timer> timer_;
};

}  // namespace caisson
