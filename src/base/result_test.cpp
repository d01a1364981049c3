#include "base/result.h"

#include <cerrno>

#include <gtest/gtest.h>

namespace caisson {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return fail("{} is odd; give an even number", value);
  return value / 2;
}

TEST(Result, CarriesValueOrMessage) {
  EXPECT_EQ(half(8).value(), 4);
  ASSERT_FALSE(half(7));
  EXPECT_EQ(half(7).error().message, "7 is odd; give an even number");
}

TEST(Result, ErrnoNamesTheThingAndTheReason) {
  const Result<> result = fail_errno(ENOENT, "cannot open disk.img");
  EXPECT_EQ(result.error().message, "cannot open disk.img: No such file or directory");
}

TEST(Result, ContextGoesInFront) {
  const Result<> result = with_context("disk 2", half(3).error());
  EXPECT_EQ(result.error().message, "disk 2: 3 is odd; give an even number");
}

}  // namespace
}  // namespace caisson
