#include "backend/limited_net.h"

#include <deque>
#include <vector>

#include "backend/test_support.h"

namespace caisson {
namespace {

// Keeps what the guest does not take, as user_network does.
class Wire final : public NetBackend {
 public:
  void send(std::span<const uint8_t> frame) override { sent.push_back(frame.size()); }
  void set_receiver(Receiver to) override { receiver = std::move(to); }
  void receive_ready() override {
    ++ready;
    offer();
  }
  void offer() {
    while (receiver && !waiting.empty()) {
      if (!receiver(std::vector<uint8_t>(waiting.front()))) return;
      waiting.pop_front();
    }
  }
  std::vector<size_t> sent;
  std::deque<size_t> waiting;
  Receiver receiver;
  unsigned ready = 0;
};

class LimitedNetTest : public test::LoopTest {
 protected:
  void send(size_t bytes) {
    const std::lock_guard hold(guard);
    net.send(std::vector<uint8_t>(bytes));
  }
  void limit(const RateLimit& to) {
    const std::lock_guard hold(guard);
    net.set_limit(to);
  }
  void receive() {
    const std::lock_guard hold(guard);
    net.set_receiver([this](std::span<const uint8_t> frame) {
      if (!room) return false;
      got.push_back(frame.size());
      return true;
    });
  }

  Wire wire;
  LimitedNet net{*loop, wire};
  std::vector<size_t> got;
  bool room = true;
};

TEST_F(LimitedNetTest, WithoutALimitNothingWaits) {
  receive();
  for (size_t i = 1; i <= 100; ++i) send(i), wire.waiting.push_back(i);
  wire.offer();
  EXPECT_EQ(wire.sent.size(), 100u);
  EXPECT_EQ(got.size(), 100u);
}

TEST_F(LimitedNetTest, BothWaysWaitAndKeepTheirOrder) {
  receive();
  limit({.bytes_per_s = 0, .ops_per_s = 200});
  const uint64_t start = EventLoop::now_ns();
  for (size_t i = 1; i <= 40; ++i) send(i), wire.waiting.push_back(i);
  wire.offer();
  EXPECT_LT(wire.sent.size(), 40u);
  EXPECT_LT(got.size(), 40u);
  ASSERT_TRUE(run_until([&] { return wire.sent.size() == 40 && got.size() == 40; }));
  EXPECT_GE(EventLoop::now_ns() - start, 95'000'000u);
  for (size_t i = 0; i < 40; ++i) ASSERT_TRUE(wire.sent[i] == i + 1 && got[i] == i + 1);
}

TEST_F(LimitedNetTest, AQueueThatIsFullLosesFrames) {
  limit({.bytes_per_s = 1, .ops_per_s = 0});
  for (size_t i = 0; i < 3 * FrameQueue::most_frames; ++i) send(1000);
  EXPECT_EQ(wire.sent.size(), 1u);
  limit({});
  EXPECT_EQ(wire.sent.size(), 1 + FrameQueue::most_frames);
}

TEST_F(LimitedNetTest, AGuestWithoutBuffersUsesNothingUp) {
  receive();
  limit({.bytes_per_s = 0, .ops_per_s = 10});
  room = false;
  wire.waiting.push_back(60);
  for (int i = 0; i < 50; ++i) wire.offer();
  room = true;
  net.receive_ready();
  EXPECT_EQ(got.size(), 1u);
}

TEST_F(LimitedNetTest, AReceiverThatGoesStopsTheTimer) {
  receive();
  limit({.bytes_per_s = 0, .ops_per_s = 100});
  for (size_t i = 0; i < 40; ++i) wire.waiting.push_back(100);
  wire.offer();
  const size_t before = got.size();
  {
    const std::lock_guard hold(guard);
    net.set_receiver({});
  }
  EXPECT_FALSE(wire.receiver);
  run_ready();
  EXPECT_EQ(got.size(), before);
}

}  // namespace
}  // namespace caisson
