#include "cli/events_command.h"

#include <gtest/gtest.h>

namespace caisson::cli {
namespace {

TEST(EventsSince, SpansAndTimes) {
  constexpr uint64_t now = 1'700'000'000'000;
  EXPECT_EQ(parse_since("90s", now).value_or(0), now - 90'000);
  EXPECT_EQ(parse_since("10m", now).value_or(0), now - 600'000);
  EXPECT_EQ(parse_since("2h", now).value_or(0), now - 7'200'000);
  EXPECT_EQ(parse_since("3d", now).value_or(0), now - 259'200'000);
  EXPECT_EQ(parse_since("2023-11-14T22:13:20Z", now).value_or(0), now);
  for (const char* bad : {"", "s", "10", "10x", "-1s", "1.5h", "99999999999d", "18446744073709551615d", "yesterday",
                          "2023-11-14", "2023-11-14T22:13:20", "2023-11-14T22:13:20Z ", "2023-13-14T22:13:20Z"}) {
    EXPECT_FALSE(parse_since(bad, now)) << bad;
  }
}

}  // namespace
}  // namespace caisson::cli
