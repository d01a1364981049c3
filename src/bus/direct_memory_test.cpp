// Memory of devices is bound where and while nothing but its window is there.
#include <array>
#include <map>

#include <gtest/gtest.h>

#include "bus/bus.h"
#include "bus/silent_device.h"

namespace caisson {
namespace {

class Binder final : public DirectBinder {
 public:
  bool bind(uint64_t address, std::span<uint8_t> memory, bool writable) override {
    return willing && bound.emplace(address, std::pair{memory.data(), writable}).second;
  }
  void unbind(uint64_t address) override { EXPECT_EQ(bound.erase(address), 1u); }
  bool written(uint64_t address) override {
    EXPECT_TRUE(bound.contains(address));
    return std::exchange(dirty, false);
  }
  std::map<uint64_t, std::pair<uint8_t*, bool>> bound;
  bool willing = true, dirty = false;
};

class DirectMemory : public testing::Test {
 protected:
  void SetUp() override {
    bus_.set_direct_binder(&binder_);
    bus_.set_direct(device_, 1, memory_, true);
  }
  [[nodiscard]] bool bound_at(uint64_t address) const {
    return binder_.bound.size() == 1 && binder_.bound.begin()->first == address;
  }
  Bus bus_;
  SilentDevice device_, other_;
  Binder binder_;
  std::array<uint8_t, 0x2000> memory_{};
};

TEST_F(DirectMemory, FollowsItsWindow) {
  EXPECT_TRUE(binder_.bound.empty());
  bus_.map(Space::Memory, 0x10000, 0x2000, device_, 0);
  EXPECT_TRUE(binder_.bound.empty()) << "another region";
  bus_.map(Space::Memory, 0x20000, 0x2000, device_, 1);
  EXPECT_TRUE(bound_at(0x20000));
  EXPECT_EQ(binder_.bound.begin()->second, std::pair(memory_.data(), true));
  bus_.map(Space::Memory, 0x40000, 0x2000, device_, 1);
  EXPECT_TRUE(bound_at(0x40000));
  bus_.unmap(Space::Memory, device_, 1);
  EXPECT_TRUE(binder_.bound.empty());
}

TEST_F(DirectMemory, IsTheDevicesWhereItIsNotWholePagesOrNotAsLong) {
  bus_.map(Space::Memory, 0x20800, 0x2000, device_, 1);
  EXPECT_TRUE(binder_.bound.empty());
  bus_.map(Space::Memory, 0x20000, 0x4000, device_, 1);
  EXPECT_TRUE(binder_.bound.empty());
}

TEST_F(DirectMemory, GivesWayToOtherWindows) {
  bus_.map(Space::Memory, 0x20000, 0x2000, device_, 1);
  bus_.map(Space::Port, 0x20000, 1, other_, 0);
  bus_.map(Space::Memory, 0x22000, 0x1000, other_, 1);
  bus_.map(Space::Memory, 0x1f000, 0x1000, other_, 2);
  EXPECT_TRUE(bound_at(0x20000)) << "beside it, or elsewhere";
  bus_.map(Space::Memory, 0x21fff, 1, other_, 3);
  EXPECT_TRUE(binder_.bound.empty());
  bus_.unmap(Space::Memory, other_, 3);
  EXPECT_TRUE(bound_at(0x20000));
  bus_.map(Space::Memory, 0, 0x100000, other_, 3);
  EXPECT_TRUE(binder_.bound.empty());
  bus_.map(Space::Memory, 0xffff'ffff'ffff'f000, 0x1000, other_, 3);
  EXPECT_TRUE(bound_at(0x20000)) << "up to the end of the space";
}

TEST_F(DirectMemory, ComesAndGoesAsTheDeviceSays) {
  bus_.map(Space::Memory, 0x20000, 0x2000, device_, 1);
  bus_.set_direct(device_, 1, {}, false);
  EXPECT_TRUE(binder_.bound.empty());
  bus_.set_direct(device_, 1, memory_, false);
  ASSERT_TRUE(bound_at(0x20000));
  EXPECT_FALSE(binder_.bound.begin()->second.second);
  bus_.remove_direct(device_);
  EXPECT_TRUE(binder_.bound.empty());
  bus_.map(Space::Memory, 0x40000, 0x2000, device_, 1);
  EXPECT_TRUE(binder_.bound.empty());
}

TEST_F(DirectMemory, MovesToAnotherBinder) {
  bus_.map(Space::Memory, 0x20000, 0x2000, device_, 1);
  Binder next;
  next.willing = false;
  bus_.set_direct_binder(&next);
  EXPECT_TRUE(binder_.bound.empty());
  EXPECT_TRUE(next.bound.empty());
  next.willing = true;
  bus_.map(Space::Memory, 0x40000, 0x2000, device_, 1);
  EXPECT_TRUE(next.bound.contains(0x40000));
  bus_.set_direct_binder(nullptr);
  EXPECT_TRUE(next.bound.empty());
}

TEST_F(DirectMemory, WritesAreKnownAlsoOfPlacesBefore) {
  EXPECT_FALSE(bus_.direct_written(device_, 1));
  bus_.map(Space::Memory, 0x20000, 0x2000, device_, 1);
  EXPECT_FALSE(bus_.direct_written(device_, 1));
  binder_.dirty = true;
  EXPECT_TRUE(bus_.direct_written(device_, 1));
  EXPECT_FALSE(bus_.direct_written(device_, 1));
  binder_.dirty = true;
  bus_.map(Space::Memory, 0x40000, 0x2000, device_, 1);
  EXPECT_FALSE(binder_.dirty);
  EXPECT_TRUE(bus_.direct_written(device_, 1));
  EXPECT_FALSE(bus_.direct_written(device_, 1));
}

}  // namespace
}  // namespace caisson
