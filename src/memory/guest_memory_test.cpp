#include "memory/guest_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

#include "memory/dirty_log.h"

namespace caisson {
namespace {

constexpr uint64_t mib = uint64_t{1} << 20, gib = uint64_t{1} << 30;

TEST(GuestMemory, SizesThatCannotBe) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{4096}, mib + 1, 2 * mib + 2048}) {
    EXPECT_FALSE(GuestMemory::create(size).has_value()) << size;
  }
}

TEST(GuestMemory, SmallMemoryHasNoHighPart) {
  const auto memory = std::move(*GuestMemory::create(16 * mib));
  EXPECT_EQ(memory->low_size(), 16 * mib);
  EXPECT_EQ(memory->high_size(), 0u);
  EXPECT_TRUE(memory->contains(16 * mib - 1, 1));
  EXPECT_FALSE(memory->contains(16 * mib - 1, 2));
  EXPECT_FALSE(memory->contains(16 * mib, 0));
  EXPECT_FALSE(memory->contains(GuestMemory::high_start, 1));
  EXPECT_FALSE(memory->contains(1, ~uint64_t{0}));  // no overflow
}

TEST(GuestMemory, WhatDoesNotFitBelowTheHoleGoesOnAt4GiB) {
  const auto memory = std::move(*GuestMemory::create(4 * gib));
  EXPECT_EQ(memory->low_size(), GuestMemory::low_limit);
  EXPECT_EQ(memory->high_size(), 4 * gib - GuestMemory::low_limit);
  EXPECT_FALSE(memory->contains(GuestMemory::low_limit, 1));
  EXPECT_FALSE(memory->contains(GuestMemory::low_limit - 1, 2));
  EXPECT_TRUE(memory->write_object(GuestMemory::low_limit - 8, uint64_t{1}));
  EXPECT_TRUE(memory->write_object(GuestMemory::high_start, uint64_t{2}));
  EXPECT_TRUE(memory->write_object(memory->end() - 8, uint64_t{3}));
  EXPECT_FALSE(memory->write_object(memory->end() - 7, uint64_t{4}));
  uint64_t value = 0;
  EXPECT_TRUE(memory->read_object(GuestMemory::low_limit - 8, value) && value == 1);
  EXPECT_TRUE(memory->read_object(GuestMemory::high_start, value) && value == 2);
  // Every page has flags of its own, without a gap for the hole.
  EXPECT_EQ(memory->page_index(GuestMemory::high_start), GuestMemory::low_limit / page_size);
  EXPECT_EQ(memory->page_index(memory->end() - 1), 4 * gib / page_size - 1);
}

TEST(GuestMemory, ClearGivesZeroes) {
  const auto memory = std::move(*GuestMemory::create(mib));
  EXPECT_TRUE(memory->write_object(0x5000, uint64_t{7}));
  EXPECT_TRUE(memory->clear().has_value());
  uint64_t value = 1;
  EXPECT_TRUE(memory->read_object(0x5000, value));
  EXPECT_EQ(value, 0u);
}

class Seen final : public GuestMemory::CodeWriteObserver {
 public:
  void code_written(Gpa gpa, uint64_t length) override { writes.emplace_back(gpa, length); }
  std::vector<std::pair<Gpa, uint64_t>> writes;
};

TEST(GuestMemory, WritesToPagesWithCodeAreReportedPageByPage) {
  const auto memory = std::move(*GuestMemory::create(mib));
  Seen seen;
  memory->set_observer(&seen);
  memory->page_flags(0x3000).fetch_or(GuestMemory::code_flag);
  memory->page_flags(0x4000).fetch_or(GuestMemory::code_flag);
  EXPECT_TRUE(memory->write(0x1000, std::array<uint8_t, 4>{}));
  EXPECT_TRUE(seen.writes.empty());
  EXPECT_TRUE(memory->write(0x2ffe, std::vector<uint8_t>(0x1010)));
  EXPECT_EQ(seen.writes, (std::vector<std::pair<Gpa, uint64_t>>{{0x3000, 0x1000}, {0x4000, 0xe}}));
  memory->set_observer(nullptr);
}

TEST(GuestMemory, RomStandsAtTheEndOfTheHole) {
  for (const uint64_t size : {16 * mib, 4 * gib}) {
    const auto memory = *GuestMemory::create(size, {.rom_room = 4 * page_size});
    EXPECT_FALSE(memory->set_rom(std::vector<uint8_t>(page_size + 1)));
    EXPECT_FALSE(memory->set_rom(std::vector<uint8_t>(5 * page_size)));
    EXPECT_FALSE(memory->is_rom_page(GuestMemory::high_start - page_size));
    ASSERT_TRUE(memory->set_rom(std::vector<uint8_t>(3 * page_size, 7)));
    EXPECT_FALSE(memory->set_rom(std::vector<uint8_t>(page_size)));
    const Gpa start = GuestMemory::high_start - 3 * page_size;
    EXPECT_EQ(memory->rom_start(), start);
    EXPECT_TRUE(memory->is_rom_page(start));
    EXPECT_TRUE(memory->is_rom_page(start + 2 * page_size));
    EXPECT_FALSE(memory->is_rom_page(start - page_size));
    EXPECT_FALSE(memory->is_rom_page(GuestMemory::high_start));
    EXPECT_FALSE(memory->is_rom_page(0));
    EXPECT_FALSE(memory->contains(start, 1));
    std::array<uint8_t, 2> bytes{};
    EXPECT_TRUE(memory->read_with_rom(GuestMemory::high_start - 2, bytes));
    EXPECT_EQ(bytes[1], 7);
    EXPECT_FALSE(memory->read_with_rom(GuestMemory::high_start - 1, bytes));
    EXPECT_FALSE(memory->read_with_rom(start - 1, bytes));
    EXPECT_TRUE(memory->read_with_rom(0, bytes));
    EXPECT_EQ(bytes[1], 0);
    ASSERT_TRUE(memory->clear());
    EXPECT_EQ(memory->base()[start], 7);
    EXPECT_EQ(memory->base()[GuestMemory::high_start - 1], 7);
    for (const Gpa gpa : {Gpa{0}, memory->low_size() - page_size, start, start + 2 * page_size}) {
      EXPECT_EQ(memory->page_address(memory->page_index(gpa)), gpa);
    }
    EXPECT_EQ(memory->page_index(start), size / page_size);
  }
}

TEST(GuestMemory, ADisplaysWindowIsNoRam) {
  const auto memory = *GuestMemory::create(uint64_t{2} << 20, {.low_end = 0x8000'0000, .video_window = true});
  EXPECT_TRUE(memory->contains(0x9'f000, 0x1000));
  EXPECT_FALSE(memory->contains(0x9'f000, 0x1001));
  EXPECT_FALSE(memory->contains(0xa'0000, 1));
  EXPECT_FALSE(memory->contains(0xb'ffff, 1));
  EXPECT_FALSE(memory->contains(0, 0x10'0000));
  EXPECT_TRUE(memory->contains(0xc'0000, 0x14'0000));
}

TEST(GuestMemory, DiscardedPagesReadAsZeroesAndCountAsWritten) {
  auto memory = GuestMemory::create(4 << 20).value();
  const std::vector<uint8_t> ones(8 * page_size, 1);
  ASSERT_TRUE(memory->write(0x10000, ones));
  DirtyPages dirty{memory->size() / page_size};
  memory->set_dirty_pages(&dirty);
  memory->discard(0x12000, 2 * page_size);
  uint8_t byte = 1;
  ASSERT_TRUE(memory->read_object(0x12000, byte));
  EXPECT_EQ(byte, 0);
  ASSERT_TRUE(memory->read_object(0x13fff, byte));
  EXPECT_EQ(byte, 0);
  ASSERT_TRUE(memory->read_object(0x14000, byte));
  EXPECT_EQ(byte, 1);
  EXPECT_EQ(dirty.count(), 2u);
  EXPECT_TRUE(dirty.contains(0x12) && dirty.contains(0x13));
  // What is no RAM, or no whole page, stays as it is.
  memory->discard(0x10001, page_size);
  memory->discard(0x10000, 100);
  memory->discard(memory->size() - page_size, 2 * page_size);
  memory->discard(~uint64_t{0} / page_size * page_size, page_size);
  EXPECT_EQ(dirty.count(), 2u);
  memory->set_dirty_pages(nullptr);
}

}  // namespace
}  // namespace caisson
