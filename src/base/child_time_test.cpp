#include "base/child_time.h"
#include "base/children.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>

#include <sys/wait.h>
#include <unistd.h>

namespace caisson {
namespace {

TEST(ChildTime, CountsChildrenThatLiveAndThatLived) {
  const uint64_t before = child_time::total_ns();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    for (volatile unsigned i = 0;; (void)i) {
    }
  }
  child_time::add(child);
  EXPECT_EQ(std::ranges::count(children_of(getpid()), child), 1);
  constexpr uint64_t enough = 20'000'000;
  while (child_time::total_ns() - before < enough) usleep(1000);
  child_time::remove(child);
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_GE(child_time::total_ns() - before, enough);
  child_time::remove(child);
}

}  // namespace
}  // namespace caisson
