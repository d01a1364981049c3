#include "machine/cpu_limits.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace caisson::machine {
namespace {

constexpr uint64_t ms = 1'000'000;

// A guest of so many CPUs that spins whenever it may, looked at as the budget says; its CPU time over that of the
// clock.
double use_of(uint32_t percent, unsigned cpus, uint64_t late_ns) {
  uint64_t now = 5'000 * ms, used = 700 * ms;
  CpuBudget budget{percent, now, used};
  bool rests = false;
  const uint64_t start = now, before = used;
  while (now < start + 20'000 * ms) {
    const uint64_t next = budget.look_again_ns(now, cpus) + late_ns;
    if (!rests) used += (next - now) * cpus;
    now = next;
    rests = budget.spend(now, used);
  }
  return static_cast<double>(used - before) / static_cast<double>(now - start);
}

TEST(CpuBudget, ASpinningGuestGetsItsShareWhateverItsCpus) {
  for (const uint32_t percent : {1u, 5u, 25u, 50u, 100u, 150u, 400u}) {
    for (const unsigned cpus : {1u, 2u, 8u}) {
      const double most = std::min(percent / 100.0, static_cast<double>(cpus));
      EXPECT_NEAR(use_of(percent, cpus, 0), most, most * 0.03 + 0.006) << percent << " % " << cpus;
      // A host that wakes us late: what was used too much is made good.
      EXPECT_NEAR(use_of(percent, cpus, 7 * ms), most, most * 0.15 + 0.006) << percent << " % " << cpus;
    }
  }
}

TEST(CpuBudget, AnIdleGuestNeverRests) {
  uint64_t now = 0, used = 0;
  CpuBudget budget{25, now, used};
  for (int i = 0; i < 1000; ++i) {
    now += 10 * ms;
    used += 2 * ms;
    ASSERT_FALSE(budget.spend(now, used)) << i;
  }
  // Nor does it save for hours what it may use in a moment.
  now += 3'600'000 * ms;
  EXPECT_FALSE(budget.spend(now, used));
  EXPECT_TRUE(budget.spend(now, used + 26 * ms));
}

TEST(CpuLimits, CpusRestUntilThereIsTimeOrTheyAreToEnd) {
  std::mutex guard;
  const auto loop = EventLoop::create(&guard).value();
  std::atomic<unsigned> kicked = 0;
  CpuLimits limits{*loop, 1, [&] { ++kicked; }};
  EXPECT_EQ(limits.kept_by(), "");
  EXPECT_FALSE(limits.rest()) << "it does not run yet";
  limits.start();
  EXPECT_TRUE(limits.rest());
  {
    const std::lock_guard hold(guard);
    limits.set_cap(1);
    EXPECT_EQ(limits.kept_by(), "vmm");
  }
  // This thread uses up what the whole process may.
  const auto look_until = [&](const std::function<bool()>& condition) {
    for (int i = 0; i < 20'000 && !condition(); ++i) {
      const auto end = loop->create_timer([&] { loop->stop(); });
      end->arm(EventLoop::now_ns() + ms);
      loop->run();
      const uint64_t until = EventLoop::now_ns() + ms;
      while (EventLoop::now_ns() < until) {
      }
    }
    return condition();
  };
  ASSERT_TRUE(look_until([&] { return kicked > 0; }));
  std::atomic<int> answer = -1;
  std::thread cpu{[&] { answer = limits.rest() ? 1 : 0; }};
  limits.stop();
  cpu.join();
  EXPECT_EQ(answer, 0);
  // Without a cap nobody rests.
  limits.start();
  {
    const std::lock_guard hold(guard);
    limits.set_cap(0);
  }
  EXPECT_TRUE(limits.rest());
  EXPECT_TRUE(limits.set_share(100));
}

TEST(CpuLimits, WhatAGroupKeepsIsNotKeptTwice) {
  std::mutex guard;
  const auto loop = EventLoop::create(&guard).value();
  CpuLimits limits{*loop, 1, [] {}};
  const std::lock_guard hold(guard);
  ASSERT_TRUE(limits.set(50, 100, false));
  EXPECT_EQ(limits.kept_by(), "vmm");
  ASSERT_TRUE(limits.set(50, std::nullopt, true));
  EXPECT_EQ(limits.kept_by(), "cgroup");
  ASSERT_TRUE(limits.set(std::nullopt, 200, true)) << "the priority stays as it is";
  ASSERT_TRUE(limits.set(0, std::nullopt, true));
  EXPECT_EQ(limits.kept_by(), "cgroup") << "there is a share";
  ASSERT_TRUE(limits.set(std::nullopt, 100, true));
  EXPECT_EQ(limits.kept_by(), "");
}

}  // namespace
}  // namespace caisson::machine
