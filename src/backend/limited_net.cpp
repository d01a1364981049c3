#include "backend/limited_net.h"

#include <utility>

namespace caisson {

LimitedNet::LimitedNet(EventLoop& loop, NetBackend& network)
    : network_(network),
      out_timer_(loop.create_timer([this] { let_go(); })),
      in_timer_(loop.create_timer([this] { network_.receive_ready(); })) {}

void LimitedNet::set_limit(const RateLimit& limit) {
  if (limit == limit_) return;
  limit_ = limit;
  out_ = in_ = RateLimiter{limit, EventLoop::now_ns()};
  let_go();
  network_.receive_ready();
}

void LimitedNet::send(std::span<const uint8_t> frame) {
  if (limit_.none()) return network_.send(frame);
  const bool first = waiting_.empty();
  if (waiting_.push(frame) && first) let_go();
}

void LimitedNet::let_go() {
  while (!waiting_.empty()) {
    const uint64_t now = EventLoop::now_ns();
    const uint64_t ready = out_.ready_at(now);
    if (ready > now) return out_timer_->arm(ready);
    out_.take(now, waiting_.front().size());
    network_.send(waiting_.front());
    waiting_.pop();
  }
}

void LimitedNet::set_receiver(Receiver receiver) {
  receiver_ = std::move(receiver);
  if (!receiver_) {
    // What the guest has sent before its driver or the machine went was on its way.
    in_timer_->cancel();
    return network_.set_receiver({});
  }
  network_.set_receiver([this](std::span<const uint8_t> frame) { return receive(frame); });
}

bool LimitedNet::receive(std::span<const uint8_t> frame) {
  const Receiver current = receiver_;  // it may be replaced from inside
  if (!current) return true;
  if (limit_.none()) return current(frame);
  const uint64_t now = EventLoop::now_ns();
  const uint64_t ready = in_.ready_at(now);
  if (ready > now) {
    in_timer_->arm(ready);
    return false;
  }
  if (!current(frame)) return false;
  in_.take(now, frame.size());
  return true;
}

}  // namespace caisson
