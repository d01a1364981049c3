#include "control/limits.h"

#include <gtest/gtest.h>

#include "control/messages.h"

namespace caisson::control {
namespace {

TEST(Limits, ARequestComesBackAsItWas) {
  SetLimits limits;
  limits.disks = {{"disk.raw", {1, 2}}, {"/a/b", {}}};
  limits.net = RateLimit{0, 3};
  limits.cpu_cap_percent = 0;
  limits.cpu_group = true;
  limits.memory_now_bytes = VmConfig::min_memory;
  const auto parsed = parse_request(serialise(Request{limits}), 0);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(std::get<SetLimits>(*parsed), limits);
  EXPECT_FALSE(parse_request(serialise(Request{limits}), 1)) << "with a descriptor";
}

TEST(Limits, WhatCannotBeIsRefused) {
  for (const char* wrong :
       {R"({"type":"set_limits","cpu_share":0})", R"({"type":"set_limits","cpu_share":10001})",
        R"({"type":"set_limits","cpu_cap_percent":6401})", R"({"type":"set_limits","memory_now_bytes":1})",
        R"({"type":"set_limits","net":{"bytes_per_s":-1}})", R"({"type":"set_limits","net":{"bytes_per_s":1e30}})",
        R"({"type":"set_limits","net":{"bits":1}})", R"({"type":"set_limits","disks":[{"disk":"a"}]})",
        R"({"type":"set_limits","disks":[{"disk":"","limit":{}}]})"}) {
    EXPECT_FALSE(parse_request(wrong, 0)) << wrong;
  }
}

TEST(Limits, AStatusTellsOfTheBalloon) {
  Status status;
  status.balloon = BalloonStatus{1, 2, 3, 4, 5, 6};
  status.cpu_limits_by = "vmm";
  const auto parsed = parse_event(serialise(Event{status}));
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(std::get<Status>(*parsed), status);
}

}  // namespace
}  // namespace caisson::control
