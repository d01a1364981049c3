#include "backend/token_bucket.h"

#include <gtest/gtest.h>

namespace caisson {
namespace {

constexpr uint64_t second = 1'000'000'000;

TEST(TokenBucket, WithoutALimitEverythingIsReady) {
  TokenBucket bucket;
  bucket.take(5, ~uint64_t{0});
  EXPECT_LE(bucket.ready_at(5), 5u);
}

TEST(TokenBucket, ABurstPassesAndThenTheRateHolds) {
  TokenBucket bucket{100, 10, 0};
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(bucket.ready_at(0), 0u) << i;
    bucket.take(0, 1);
  }
  // One in ten milliseconds from here on.
  uint64_t now = 0;
  for (int i = 1; i <= 50; ++i) {
    const uint64_t ready = bucket.ready_at(now);
    ASSERT_GT(ready, now);
    now = ready;
    ASSERT_EQ(bucket.ready_at(now), now) << "who comes when it was told has to wait again";
    bucket.take(now, 1);
  }
  EXPECT_NEAR(static_cast<double>(now), 50 * 1e7, 1000);
}

TEST(TokenBucket, WhatIsLargerThanTheBucketPassesAndIsMadeGood) {
  TokenBucket bucket{1000, 100, 0};
  ASSERT_EQ(bucket.ready_at(0), 0u);
  bucket.take(0, 5000);
  const uint64_t ready = bucket.ready_at(0);
  EXPECT_NEAR(static_cast<double>(ready), 4.901 * second, 1000);
}

TEST(TokenBucket, ARestFillsItToItsDepthOnly) {
  TokenBucket bucket{1000, 100, 0};
  bucket.take(0, 100);
  const uint64_t later = 3600 * second;
  bucket.take(later, 100);
  EXPECT_GT(bucket.ready_at(later), later);
}

TEST(TokenBucket, AClockThatGoesBackFillsNothing) {
  TokenBucket bucket{1000, 1, second};
  bucket.take(second, 1);
  EXPECT_GT(bucket.ready_at(second / 2), second / 2);
}

TEST(TokenBucket, ExtremesDoNotOverflow) {
  TokenBucket bucket{~uint64_t{0}, ~uint64_t{0}, 0};
  bucket.take(0, ~uint64_t{0});
  EXPECT_LT(bucket.ready_at(0), ~uint64_t{0});
  TokenBucket slow{1, 1, 0};
  slow.take(0, uint64_t{1} << 32);
  EXPECT_NEAR(static_cast<double>(slow.ready_at(0)) / second, 4294967296.0, 2);
}

TEST(RateLimiter, TheScarcerOfBothDecides) {
  RateLimiter limiter{{.bytes_per_s = 1'000'000, .ops_per_s = 10}, 0};
  limiter.take(0, 1);
  EXPECT_NEAR(static_cast<double>(limiter.ready_at(0)), second / 10, 1000);
  limiter.take(0, 1'000'000);
  EXPECT_GT(limiter.ready_at(0), second * 8 / 10);
  RateLimiter none{RateLimit{}, 0};
  none.take(0, 1'000'000);
  EXPECT_EQ(none.ready_at(7), 0u);
}

}  // namespace
}  // namespace caisson
