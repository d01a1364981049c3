// A network whose guest sends, and gets, no more than so many bytes and packets in a second, each way for itself.
//   Models   what the guest sends too fast waits in a queue of bounded length and is lost where that is full, as at the
//            narrow end of a line; what it gets too fast waits at the network behind, which slows its senders down
//   Threads  as net_backend.h; timers of the event loop, under its guard
#pragma once

#include <memory>

#include "backend/frame_queue.h"
#include "backend/net_backend.h"
#include "backend/token_bucket.h"
#include "base/event_loop.h"

namespace caisson {

class LimitedNet final : public NetBackend {
 public:
  // `network` outlives it.
  LimitedNet(EventLoop& loop, NetBackend& network);

  // From now on, for what waits already, too. With none() nothing waits any more.
  void set_limit(const RateLimit& limit);
  [[nodiscard]] const RateLimit& limit() const { return limit_; }

  void send(std::span<const uint8_t> frame) override;
  void set_receiver(Receiver receiver) override;
  void receive_ready() override { network_.receive_ready(); }

 private:
  void let_go();
  [[nodiscard]] bool receive(std::span<const uint8_t> frame);

  NetBackend& network_;
  RateLimit limit_;
  RateLimiter out_, in_;
  FrameQueue waiting_;  // from the guest
  Receiver receiver_;
  std::unique_ptr<EventLoop::Timer> out_timer_, in_timer_;
};

}  // namespace caisson
