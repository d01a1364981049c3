// Doorbells follow their windows, whoever passes them on.
#include <map>

#include <gtest/gtest.h>

#include "bus/bus.h"
#include "bus/silent_device.h"

namespace caisson {
namespace {

// Passes on like a kernel: late, and what waits when it is unbound.
class Binder final : public DoorbellBinder {
 public:
  bool bind(uint64_t address, std::function<void()> ring) override {
    return willing && bound.emplace(address, std::move(ring)).second;
  }
  void unbind(uint64_t address) override {
    const auto ring = bound.at(address);
    bound.erase(address);
    if (waiting == address) ring();
  }
  std::map<uint64_t, std::function<void()>> bound;
  uint64_t waiting = 0;
  bool willing = true;
};

class Doorbells : public testing::Test {
 protected:
  void SetUp() override {
    bus_.add_doorbell(bell_, 2, 0x10, [this] { ++rings_; });
    bus_.set_binder(&binder_);
  }
  std::vector<uint64_t> bound() {
    std::vector<uint64_t> addresses;
    for (const auto& [address, ring] : binder_.bound) addresses.push_back(address);
    return addresses;
  }
  Bus bus_;
  SilentDevice bell_, other_;
  Binder binder_;
  int rings_ = 0;
};

TEST_F(Doorbells, AreBoundWhileTheirWindowIsMapped) {
  EXPECT_TRUE(bound().empty());
  bus_.map(Space::Memory, 0x4000, 0x1000, bell_, 1);
  EXPECT_TRUE(bound().empty()) << "another region";
  bus_.map(Space::Memory, 0x1000, 0x1000, bell_, 2);
  EXPECT_EQ(bound(), (std::vector<uint64_t>{0x1010}));
  bus_.map(Space::Memory, 0x2000, 0x1000, bell_, 2);
  EXPECT_EQ(bound(), (std::vector<uint64_t>{0x2010})) << "moved";
  bus_.unmap(Space::Memory, bell_, 2);
  EXPECT_TRUE(bound().empty());
}

TEST_F(Doorbells, GoFromOneBinderToTheNext) {
  bus_.map(Space::Memory, 0x1000, 0x1000, bell_, 2);
  Binder next;
  bus_.set_binder(&next);
  EXPECT_TRUE(bound().empty());
  EXPECT_TRUE(next.bound.contains(0x1010));
  bus_.set_binder(nullptr);
  EXPECT_TRUE(next.bound.empty());
}

TEST_F(Doorbells, RingThatWaitsIsNotLost) {
  bus_.map(Space::Memory, 0x1000, 0x1000, bell_, 2);
  binder_.waiting = 0x1010;
  bus_.unmap(Space::Memory, bell_, 2);
  EXPECT_EQ(rings_, 1);
}

TEST_F(Doorbells, BelongToTheWindowOnTop) {
  bus_.map(Space::Memory, 0x1000, 0x1000, bell_, 2);
  bus_.map(Space::Memory, 0x1000, 0x20, other_, 0);
  bus_.set_binder(&binder_);
  EXPECT_TRUE(bound().empty());
}

TEST_F(Doorbells, GoWithTheirDevice) {
  bus_.add_doorbell(other_, 0, 0, [this] { rings_ += 100; });
  bus_.map(Space::Memory, 0x1000, 0x1000, bell_, 2);
  bus_.map(Space::Memory, 0x3000, 0x1000, other_, 0);
  binder_.waiting = 0x1010;
  bus_.remove_doorbells(bell_);
  EXPECT_EQ(rings_, 1) << "the ring that waited";
  EXPECT_EQ(bound(), (std::vector<uint64_t>{0x3000}));
  bus_.set_binder(nullptr);
  bus_.set_binder(&binder_);
  EXPECT_EQ(bound(), (std::vector<uint64_t>{0x3000}));
}

TEST_F(Doorbells, MayStayPlainWrites) {
  binder_.willing = false;
  bus_.map(Space::Memory, 0x1000, 0x1000, bell_, 2);
  bus_.unmap(Space::Memory, bell_, 2);
  EXPECT_EQ(rings_, 0);
}

}  // namespace
}  // namespace caisson
