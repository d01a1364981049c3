#include "jit/direct/same_cpu.h"

#include <gtest/gtest.h>

#include <thread>

namespace caisson::jit {
namespace {

int allowed() {
  cpu_set_t set;
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  return CPU_COUNT(&set);
}

TEST(SameCpu, StaysMovesAndLeaves) {
  const int before = allowed();
  {
    SameCpu same;
    EXPECT_EQ(same.cpu(), -1);
    same.move();
    EXPECT_EQ(allowed(), before);
    same.stay();
    ASSERT_GE(same.cpu(), 0);
    EXPECT_EQ(allowed(), 1);
    EXPECT_EQ(sched_getcpu(), same.cpu());
    const int first = same.cpu();
    same.move();
    EXPECT_EQ(allowed(), 1);
    if (before > 1) {
      EXPECT_NE(same.cpu(), first);
    }
    EXPECT_EQ(sched_getcpu(), same.cpu());
    same.leave();
    EXPECT_EQ(allowed(), before);
    same.stay();
  }
  EXPECT_EQ(allowed(), before);
}

TEST(SameCpu, ThreadsAvoidEachOther) {
  if (allowed() < 2) GTEST_SKIP() << "one CPU";
  SameCpu one;
  one.stay();
  std::thread([&] {
    // (It has the other's CPU from it, and nothing else to choose from.)
    SameCpu inherited;
    inherited.stay();
    EXPECT_EQ(inherited.cpu(), one.cpu());
  }).join();
  one.leave();
  std::thread([&] {
    SameCpu other;
    one.leave();
    other.stay();
    EXPECT_GE(other.cpu(), 0);
  }).join();
  one.stay();
  EXPECT_GE(one.cpu(), 0);
}

}  // namespace
}  // namespace caisson::jit
