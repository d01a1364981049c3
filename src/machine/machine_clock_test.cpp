#include "machine/machine_clock.h"

#include <atomic>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

namespace caisson::machine {
namespace {

void expect_close(uint64_t hz, uint64_t expected) {
  EXPECT_NEAR(static_cast<double>(hz), static_cast<double>(expected), static_cast<double>(expected) * 1e-3);
}

TEST(MachineClock, MeasuresTheTscWithAndWithoutAnEarlierReading) {
  const TscReading earlier = read_tsc();
  const uint64_t alone = host_tsc_hz({});
  EXPECT_GT(alone, 100'000'000u);
  expect_close(host_tsc_hz(earlier), alone);
}

TEST(MachineClock, TakesNoReadingThatCannotBe) {
  const uint64_t alone = host_tsc_hz({});
  const TscReading now = read_tsc();
  expect_close(host_tsc_hz({now.tsc + 1'000'000'000'000, now.ns - 5'000'000}), alone);
  expect_close(host_tsc_hz({now.tsc, now.ns + 3'600'000'000'000}), alone);
  expect_close(host_tsc_hz({1, 1}), alone);
}

// Runs the loop until `done`, at most for a while.
template <class Done>
void run_until(EventLoop& loop, Done done) {
  for (int i = 0; i < 2000 && !done(); ++i) {
    const auto soon = loop.create_timer([&] { loop.stop(); });
    soon->arm(EventLoop::now_ns() + 1'000'000);
    loop.run();
  }
}

TEST(MachineClock, StandsStillWithItsTimers) {
  std::mutex guard;
  auto loop = EventLoop::create(&guard);
  ASSERT_TRUE(loop);
  MachineClock clock(**loop, 1'000'000'000);
  int fired = 0;
  const auto timer = clock.create_timer([&] { ++fired; });
  timer->arm(clock.now_ns() + 5'000'000);

  clock.stand_still();
  const uint64_t ns = clock.now_ns();
  const uint64_t tsc = clock.tsc();
  const uint64_t before = EventLoop::now_ns();
  run_until(**loop, [&] { return EventLoop::now_ns() > before + 30'000'000; });
  EXPECT_EQ(fired, 0);
  EXPECT_EQ(clock.now_ns(), ns);
  EXPECT_EQ(clock.tsc(), tsc);
  // One that is armed meanwhile waits as well.
  int late = 0;
  const auto other = clock.create_timer([&] { ++late; });
  other->arm(0);
  run_until(**loop, [&] { return EventLoop::now_ns() > before + 40'000'000; });
  EXPECT_EQ(late, 0);

  const uint64_t at_end = EventLoop::now_ns();
  clock.go_on();
  const uint64_t later = clock.now_ns();
  EXPECT_GE(later, ns);
  EXPECT_LE(later - ns, EventLoop::now_ns() - at_end) << "the pause does not count";
  run_until(**loop, [&] { return fired != 0 && late != 0; });
  EXPECT_EQ(fired, 1);
  EXPECT_EQ(late, 1);
  EXPECT_GE(clock.now_ns(), ns);
}

// For the thread sanitizer, too: who may read during a pause is whoever has the device lock.
TEST(MachineClock, NeverGoesBackForThoseWhoHoldTheLock) {
  std::mutex guard;
  auto loop = EventLoop::create(&guard);
  ASSERT_TRUE(loop);
  MachineClock clock(**loop, 1'000'000'000);
  std::atomic<bool> done = false;
  std::atomic<uint64_t> backwards = 0;
  std::thread reader{[&] {
    uint64_t last_ns = 0, last_tsc = 0;
    while (!done) {
      const std::lock_guard hold(guard);
      const uint64_t ns = clock.now_ns(), tsc = clock.tsc();
      if (ns < last_ns || tsc < last_tsc) ++backwards;
      last_ns = ns, last_tsc = tsc;
    }
  }};
  for (int i = 0; i < 200; ++i) {
    {
      const std::lock_guard hold(guard);
      clock.stand_still();
    }
    std::this_thread::yield();
    const std::lock_guard hold(guard);
    clock.go_on();
  }
  done = true;
  reader.join();
  EXPECT_EQ(backwards, 0u);
}

}  // namespace
}  // namespace caisson::machine
