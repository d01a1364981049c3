#include "machine/machine_clock.h"

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

  clock.go_on();
  EXPECT_GE(clock.now_ns(), ns);
  EXPECT_LT(clock.now_ns(), ns + 30'000'000) << "the pause does not count";
  run_until(**loop, [&] { return fired != 0 && late != 0; });
  EXPECT_EQ(fired, 1);
  EXPECT_EQ(late, 1);
  EXPECT_GE(clock.now_ns(), ns);
}

}  // namespace
}  // namespace caisson::machine
