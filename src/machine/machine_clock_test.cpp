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

}  // namespace
}  // namespace caisson::machine
