#include "backend/limited_disk.h"

#include <utility>

namespace caisson {
namespace {

// Discards move no data, and a guest gives back a whole disk in a few of them.
uint64_t bytes_of(const BlockRequest& request) { return request.op == BlockOp::Discard ? 0 : request.length; }

}  // namespace

LimitedDisk::LimitedDisk(EventLoop& loop, std::unique_ptr<BlockBackend> image)
    : image_(std::move(image)), timer_(loop.create_timer([this] { let_go(); })) {}

LimitedDisk::~LimitedDisk() = default;

void LimitedDisk::set_limit(const RateLimit& limit) {
  if (limit == limit_) return;
  limit_ = limit;
  limiter_ = RateLimiter{limit, EventLoop::now_ns()};
  let_go();
}

void LimitedDisk::submit(BlockRequest request) {
  if (limit_.none()) return image_->submit(std::move(request));
  waiting_.push_back(std::move(request));
  // One that waits has armed the timer.
  if (waiting_.size() == 1) let_go();
}

void LimitedDisk::let_go() {
  while (!waiting_.empty()) {
    const uint64_t now = EventLoop::now_ns();
    const uint64_t ready = limiter_.ready_at(now);
    if (ready > now) return timer_->arm(ready);
    limiter_.take(now, bytes_of(waiting_.front()));
    BlockRequest request = std::move(waiting_.front());
    waiting_.pop_front();
    image_->submit(std::move(request));
  }
}

void LimitedDisk::drain() {
  timer_->cancel();
  while (!waiting_.empty()) {
    BlockRequest request = std::move(waiting_.front());
    waiting_.pop_front();
    image_->submit(std::move(request));
  }
  image_->drain();
}

}  // namespace caisson
