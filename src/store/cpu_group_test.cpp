#include "store/cpu_group.h"

#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>
#include <unistd.h>

#include "store/files.h"

namespace caisson::store {
namespace {

// A folder that looks like mounted control groups, and a machine's.
class CpuGroupTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("TMPDIR");
    path_ = std::string{folder != nullptr ? folder : "/tmp"} + "/caisson-group-XXXXXX";
    ASSERT_NE(::mkdtemp(path_.data()), nullptr);
    for (const char* name : {"/v1/user", "/v2/app/shell", "/machine"}) {
      ASSERT_TRUE(make_folders(path_ + name));
    }
    write("/v2/cgroup.subtree_control", "memory pids\n");
    write("/v2/app/cgroup.subtree_control", "memory cpu pids\n");
    write("/v2/app/cgroup.procs", "");
    write("/v2/app/shell/cgroup.subtree_control", "\n");
    auto machine = VmFolder::open(path_ + "/machine", "one");
    ASSERT_TRUE(machine);
    folder_.emplace(std::move(*machine));
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(path_)); }

  void write(const std::string& name, std::string_view text) const {
    ASSERT_TRUE(write_file(path_ + name, text, false));
  }
  static std::string read(const std::string& path) { return read_file(path, 4096).value_or("?"); }
  std::string mounts(const std::string& root_1 = "/", const std::string& root_2 = "/") const {
    return "21 1 0:20 / /proc rw - proc proc rw\n31 23 0:28 " + root_1 + " " + path_ +
           "/v1 rw,relatime - cgroup cgroup rw,cpu,cpuacct\n32 23 0:29 / /nowhere rw - cgroup cgroup rw,cpuset\n33 23 "
           "0:30 " +
           root_2 + " " + path_ + "/v2 rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
  }
  // As the kernel does when a group is removed: its files are no obstacle.
  void empty_group() const {
    for (const auto& entry : std::filesystem::directory_iterator{cpu_group(*folder_)})
      std::filesystem::remove(entry.path());
  }

  std::string path_;
  std::optional<VmFolder> folder_;
};

TEST_F(CpuGroupTest, AGroupIsMadeWhereTheCallerMay) {
  auto place = find_cpu_groups("4:cpuset:/\n3:cpu,cpuacct:/user\n0::/app/shell\n", mounts(), true);
  ASSERT_TRUE(place) << place.error().message;
  EXPECT_EQ(place->version, 1u);
  EXPECT_EQ(place->path, path_ + "/v1/user");
  // The nearest one that hands the controller on.
  place = find_cpu_groups("4:cpuset:/\n0::/app/shell\n", mounts(), false);
  ASSERT_TRUE(place) << place.error().message;
  EXPECT_EQ(place->version, 2u);
  EXPECT_EQ(place->path, path_ + "/v2/app");
  // Of a container, whose own group is the root that it sees.
  place = find_cpu_groups("0::/docker/7/app/shell\n", mounts("/", "/docker/7"), false);
  ASSERT_TRUE(place) << place.error().message;
  EXPECT_EQ(place->path, path_ + "/v2/app");
}

TEST_F(CpuGroupTest, ThereIsAReasonWhereThereIsNoPlace) {
  for (const char* own : {"", "x", "0:", "1:memory:/\n", "1:cpu:/none\n", "1:cpu:/../v2\n", "1:cpu:user\n",
                          "0::/none\n", "0::/app2/shell\n", "0::/..\n", "0::/../../etc\n"}) {
    const auto place = find_cpu_groups(own, mounts(), false);
    EXPECT_FALSE(place) << own << place->path;
  }
  EXPECT_FALSE(find_cpu_groups("1:cpu:/user\n", mounts("/docker/7"), false)) << "not below the mount";
  EXPECT_FALSE(find_cpu_groups("1:cpu:/docker/77\n", mounts("/docker/7"), false));
  EXPECT_FALSE(find_cpu_groups("1:cpu:/user\n0::/\n", "nonsense\n - \n1 2 3 4 - cgroup\n", false));
  // The controller is handed to /app, but nobody has said that the rest of the tree is not systemd's.
  if (::getuid() == 0) {
    const auto place = find_cpu_groups("0::/app/shell\n", mounts(), true);
    ASSERT_FALSE(place);
    EXPECT_NE(place.error().message.find("not delegated"), std::string::npos) << place.error().message;
  }
}

TEST_F(CpuGroupTest, LimitsAreWrittenAsEachVersionHasThem) {
  EXPECT_EQ(cpu_group(*folder_), "");
  EXPECT_FALSE(change_cpu_group(*folder_, {50, 100}));
  ASSERT_TRUE(limit_by_cpu_group(*folder_, {1, path_ + "/v1/user"}, 4711, {150, 50}));
  std::string group = cpu_group(*folder_);
  EXPECT_TRUE(group.starts_with(path_ + "/v1/user/caisson-one-")) << group;
  EXPECT_EQ(read(group + "/cpu.cfs_period_us"), "100000");
  EXPECT_EQ(read(group + "/cpu.cfs_quota_us"), "150000");
  EXPECT_EQ(read(group + "/cpu.shares"), "512");
  EXPECT_EQ(read(group + "/cgroup.procs"), "4711");
  // Again, without another group.
  ASSERT_TRUE(limit_by_cpu_group(*folder_, {1, path_ + "/v1/user"}, 4711, {0, 10000}));
  EXPECT_EQ(cpu_group(*folder_), group);
  EXPECT_EQ(read(group + "/cpu.cfs_quota_us"), "-1");
  EXPECT_EQ(read(group + "/cpu.shares"), "102400");
  empty_group();
  EXPECT_TRUE(remove_cpu_group(*folder_, 0));
  EXPECT_FALSE(std::filesystem::exists(group));
  EXPECT_EQ(cpu_group(*folder_), "");
  EXPECT_TRUE(remove_cpu_group(*folder_, 0)) << "there is none";

  ASSERT_TRUE(limit_by_cpu_group(*folder_, {2, path_ + "/v2/app"}, 4711, {1, 1}));
  group = cpu_group(*folder_);
  EXPECT_EQ(read(group + "/cpu.max"), "1000 100000");
  EXPECT_EQ(read(group + "/cpu.weight"), "1");
  ASSERT_TRUE(change_cpu_group(*folder_, {0, 100}));
  EXPECT_EQ(read(group + "/cpu.max"), "max 100000");
  EXPECT_EQ(read(group + "/cpu.weight"), "100");
}

TEST_F(CpuGroupTest, WhatCannotBeMadeLeavesNothing) {
  EXPECT_FALSE(limit_by_cpu_group(*folder_, {2, path_ + "/none"}, 4711, {50, 100}));
  EXPECT_EQ(cpu_group(*folder_), "");
}

TEST_F(CpuGroupTest, OnlyItsOwnGroupIsTouched) {
  // One with something in it is not removed, and not forgotten.
  ASSERT_TRUE(limit_by_cpu_group(*folder_, {2, path_ + "/v2/app"}, 4711, {50, 100}));
  const std::string group = cpu_group(*folder_);
  EXPECT_FALSE(remove_cpu_group(*folder_, 0));
  EXPECT_EQ(cpu_group(*folder_), group);
  // One that went with the host's restart, or that a killed command named and did not come to make.
  std::filesystem::remove_all(group);
  EXPECT_TRUE(remove_cpu_group(*folder_, 0));
  // A name that is not one of ours.
  for (const std::string& trace :
       {"2 " + path_ + "/v2/app/shell\n", std::string{"2 caisson-a\n"}, "3 " + path_ + "/v2/caisson-b\n",
        "2 " + path_ + "/v2/../caisson-b\n", std::string{"2"}, std::string{}}) {
    write("/machine/cpu-group", trace);
    EXPECT_EQ(cpu_group(*folder_), "") << trace;
    EXPECT_TRUE(remove_cpu_group(*folder_, 0));
    EXPECT_TRUE(std::filesystem::exists(path_ + "/v2/app/shell"));
  }
}

}  // namespace
}  // namespace caisson::store
