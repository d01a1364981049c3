#include "cli/limit_options.h"

#include <gtest/gtest.h>

#include "cli/run_options.h"

namespace caisson::cli {
namespace {

using control::DiskLimit;
using control::RateLimit;

TEST(LimitOptions, DisksByTheirEnd) {
  const auto parsed = [](std::string_view text) { return parse_disk_limit(text).value_or(DiskLimit{}); };
  EXPECT_EQ(parsed("0,bps=50M,iops=1000"), (DiskLimit{"0", {50 << 20, 1000}}));
  EXPECT_EQ(parsed("/a,b.raw,iops=7"), (DiskLimit{"/a,b.raw", {0, 7}}));
  EXPECT_EQ(parsed("disk.raw,none"), (DiskLimit{"disk.raw", {}}));
  EXPECT_EQ(parsed("a=b,bps=1"), (DiskLimit{"a=b", {1, 0}}));
  for (const char* wrong : {"", "0", "0,", ",bps=1", "0,bps=", "0,bps=0", "0,bps=x", "0,iops=1M", "0,bps=9999T",
                            "0,none,bps=1", "0,pps=1", "bps=1"}) {
    EXPECT_FALSE(parse_disk_limit(wrong)) << wrong;
  }
}

TEST(LimitOptions, Networks) {
  EXPECT_EQ(parse_net_limit("bps=10M,pps=5000").value_or(RateLimit{}), (RateLimit{10 << 20, 5000}));
  EXPECT_EQ(parse_net_limit("none").value_or(RateLimit{1, 1}), RateLimit{});
  for (const char* wrong : {"", "iops=1", "10M", "bps=-1", "bps=1,", "none,bps=1"}) {
    EXPECT_FALSE(parse_net_limit(wrong)) << wrong;
  }
  const auto card = parse_net("user,bps=1M,model=e1000");
  ASSERT_TRUE(card);
  EXPECT_EQ(card->card, control::NetCard::E1000);
  EXPECT_EQ(card->limit, (RateLimit{1 << 20, 0}));
  EXPECT_EQ(parse_net("user")->limit, std::nullopt);
  EXPECT_FALSE(parse_net("none,bps=1M"));
  EXPECT_FALSE(parse_net("user,iops=1"));
  RunOptions options;
  options.net = "user,model=e1000,bps=1k";
  const auto config = to_config(options, "");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->net_card, control::NetCard::E1000);
  EXPECT_EQ(config->net_limit, (RateLimit{1024, 0}));
  options.net = "user,speed=1";
  EXPECT_FALSE(to_config(options, ""));
  options.net = "none";
  options.net_limit = "bps=1";
  EXPECT_FALSE(to_config(options, ""));
}

TEST(LimitOptions, DisksOfRun) {
  const auto disk = parse_disk("a,b.raw,bps=1M,ro,iops=5");
  ASSERT_TRUE(disk) << disk.error().message;
  EXPECT_EQ(disk->path, "a,b.raw");
  EXPECT_TRUE(disk->read_only);
  EXPECT_EQ(disk->limit, (RateLimit{1 << 20, 5}));
  const store::DiskSpec spec = to_spec(*parse_disk("/d.img,format=raw,bus=nvme,ro,bps=1M"));
  EXPECT_EQ(spec, (store::DiskSpec{"/d.img", true, "raw", control::DiskBus::Nvme, RateLimit{1 << 20, 0}}));
  EXPECT_FALSE(parse_disk("a,bps=0"));
}

TEST(LimitOptions, CpusAndMemory) {
  EXPECT_EQ(parse_cpu_cap("50%").value_or(0), 50u);
  EXPECT_EQ(parse_cpu_cap("none").value_or(1), 0u);
  for (const char* wrong : {"", "%", "50", "0%", "-5%", "6401%", "50%%", "half"}) {
    EXPECT_FALSE(parse_cpu_cap(wrong)) << wrong;
  }
  EXPECT_EQ(parse_cpu_share("200").value_or(0), 200u);
  for (const char* wrong : {"", "0", "10001", "x"}) EXPECT_FALSE(parse_cpu_share(wrong)) << wrong;
  EXPECT_EQ(parse_memory_now("256M").value_or(0), 256u << 20);
  for (const char* wrong : {"", "8M", "1k", "x", "2T"}) EXPECT_FALSE(parse_memory_now(wrong)) << wrong;
}

}  // namespace
}  // namespace caisson::cli
