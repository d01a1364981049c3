#include "life/limits.h"

#include <gtest/gtest.h>

namespace caisson::life {
namespace {

using control::DiskLimit;
using control::RateLimit;

store::VmSpec machine() {
  store::VmSpec spec;
  spec.kernel = "vmlinuz";
  spec.disks = {{"disk.qcow2"}, {"/a/data.raw"}, {"/b/data.raw"}, {"/c/3"}};
  return spec;
}

TEST(Limits, DisksAreFoundByNumberPathOrName) {
  const auto spec = machine();
  EXPECT_EQ(disk_named(spec, "0").value_or(9), 0u);
  EXPECT_EQ(disk_named(spec, "disk.qcow2").value_or(9), 0u);
  EXPECT_EQ(disk_named(spec, "/b/data.raw").value_or(9), 2u);
  EXPECT_EQ(disk_named(spec, "3").value_or(9), 3u);
  for (const char* wrong : {"", "4", "-1", "data.raw", "other", "0x1"}) EXPECT_FALSE(disk_named(spec, wrong)) << wrong;
  EXPECT_NE(disk_named(spec, "other").error().message.find("0 (disk.qcow2)"), std::string::npos);
}

TEST(Limits, AChangeIsInTheConfigurationAndIsTold) {
  auto spec = machine();
  Change change;
  EXPECT_FALSE(live_limits(change, spec));
  change.disk_limits = {{"1", {5, 6}}, {"disk.qcow2", {7, 0}}};
  change.net_limit = RateLimit{8, 0};
  change.cpu_cap_percent = 50;
  ASSERT_TRUE(apply(change, spec));
  EXPECT_EQ(spec.disks[1].limit, (RateLimit{5, 6}));
  EXPECT_EQ(spec.disks[0].limit, (RateLimit{7, 0}));
  EXPECT_EQ(spec.net_limit, (RateLimit{8, 0}));
  const auto live = live_limits(change, spec);
  ASSERT_TRUE(live);
  EXPECT_EQ(live->disks, (std::vector<DiskLimit>{{"/a/data.raw", {5, 6}}, {"disk.qcow2", {7, 0}}}));
  EXPECT_EQ(live->cpu_cap_percent, 50u);
  // None is no limit, rather than one of nothing.
  change.disk_limits = {{"1", {}}};
  change.net_limit = RateLimit{};
  ASSERT_TRUE(apply(change, spec));
  EXPECT_FALSE(spec.disks[1].limit);
  EXPECT_FALSE(spec.net_limit);
  EXPECT_TRUE(live_limits(change, spec)->disks.front().limit.none());
  change.disk_limits = {{"9", {}}};
  EXPECT_FALSE(apply(change, spec));
  // A network that goes takes its limit with it.
  spec.net_limit = RateLimit{1, 1};
  Change without;
  without.net = control::NetKind::None;
  ASSERT_TRUE(apply(without, spec));
  EXPECT_TRUE(spec.validate()) << spec.validate().error().message;
}

}  // namespace
}  // namespace caisson::life
