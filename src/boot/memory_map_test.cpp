#include "boot/memory_map.h"

#include <gtest/gtest.h>

namespace caisson::boot {
namespace {

constexpr auto ram = MemoryType::Ram, reserved = MemoryType::Reserved;

TEST(MemoryMap, SmallGuest) {
  const auto memory = GuestMemory::create(128u << 20);
  ASSERT_TRUE(memory);
  const MemoryMap map(**memory);
  const std::vector<MemoryRange> expected = {
      {0, 0x9'fc00, ram}, {0x9'fc00, 0x400, reserved}, {0xe'0000, 0x2'0000, reserved}, {0x10'0000, (127u << 20), ram}};
  EXPECT_EQ(map.ranges(), expected);
}

TEST(MemoryMap, RamAboveFourGib) {
  const auto memory = GuestMemory::create(uint64_t{4} << 30);
  ASSERT_TRUE(memory);
  MemoryMap map(**memory);
  map.set(0xe000'0000, 1u << 28, reserved);
  map.set(0xbfff'0000, 0x1'0000, MemoryType::AcpiReclaim);
  const auto& ranges = map.ranges();
  ASSERT_EQ(ranges.size(), 7u);
  EXPECT_EQ(ranges[3], (MemoryRange{0x10'0000, 0xbfff'0000 - 0x10'0000, ram}));
  EXPECT_EQ(ranges[4], (MemoryRange{0xbfff'0000, 0x1'0000, MemoryType::AcpiReclaim}));
  EXPECT_EQ(ranges[6], (MemoryRange{0x1'0000'0000, uint64_t{1} << 30, ram}));
}

TEST(MemoryMap, SetSplitsCoversAndJoins) {
  const auto memory = GuestMemory::create(16u << 20);
  ASSERT_TRUE(memory);
  MemoryMap map(**memory);
  map.set(0x20'0000, 0x10'0000, reserved);
  map.set(0x30'0000, 0x10'0000, reserved);
  EXPECT_EQ(map.ranges()[4], (MemoryRange{0x20'0000, 0x20'0000, reserved}));
  map.set(0x20'0000, 0x20'0000, ram);
  EXPECT_EQ(map.ranges().back(), (MemoryRange{0x10'0000, 15u << 20, ram}));
  map.set(0, 16u << 20, reserved);
  EXPECT_EQ(map.ranges(), (std::vector<MemoryRange>{{0, 16u << 20, reserved}}));
  map.set(5, 0, ram);
  EXPECT_EQ(map.ranges().size(), 1u);
}

}  // namespace
}  // namespace caisson::boot
