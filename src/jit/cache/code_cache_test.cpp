#include "jit/cache/code_cache.h"

#include <gtest/gtest.h>

#include <cstring>

#include "jit/translate/emitter.h"

namespace caisson::jit {
namespace {

constexpr size_t cache_size = size_t{64} << 20;

class CodeCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    memory_ = std::move(*GuestMemory::create(uint64_t{64} << 20));
    cache_ = std::move(*CodeCache::create(*memory_, cache_size));
    cache_->advance(64);  // stubs
    stale_ = cache_->run_position() - 64;
    cache_->set_base(stale_);
  }

  // A block of code that does nothing; `gpa` makes it another.
  Block& block(Gpa gpa, uint16_t size = 64, const std::vector<HostPoint>& points = {{0, 0, 0}}) {
    std::memset(cache_->write_position(), 0x90, size);
    Block made;
    made.key = {.gpa = gpa, .rip = gpa, .mode = 0};
    made.host_size = size;
    made.entry_offset = 8;
    made.stale_offset = static_cast<uint16_t>(size - 16);
    made.guest_size = 4;
    return *cache_->commit(made, points);
  }

  // Where the jump at `at` leads, or null if there is none.
  static const uint8_t* jump_target(const uint8_t* at) {
    int32_t distance;
    std::memcpy(&distance, at + 1, sizeof distance);
    return at[0] == 0xe9 ? at + 5 + distance : nullptr;
  }

  // Blocks of 16 KiB until there is no room for one more.
  void fill(Gpa first) {
    for (Gpa gpa = first; cache_->has_room(16384); gpa += 16) block(gpa, 16384);
  }
  [[nodiscard]] size_t filled(Gpa first) {
    cache_->drop_all();
    fill(first);
    return cache_->bytes_used();
  }

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<CodeCache> cache_;
  const uint8_t* stale_ = nullptr;
};

TEST_F(CodeCacheTest, DeadAndSuspendedBlocksLeadOutByBothEntries) {
  Block& one = block(0x1000);
  cache_->suspend(one);
  EXPECT_TRUE(CodeCache::is_suspended(one));
  EXPECT_EQ(jump_target(one.start), stale_);
  EXPECT_EQ(jump_target(one.entry()), one.start + one.stale_offset);
  cache_->resume(one);
  EXPECT_FALSE(CodeCache::is_suspended(one));
  EXPECT_EQ(one.start[0], 0x90);
  EXPECT_EQ(one.entry()[0], 0x90);
  EXPECT_EQ(cache_->find(one.key), &one);

  cache_->suspend(one);
  cache_->kill(one);
  EXPECT_EQ(jump_target(one.start), stale_);
  EXPECT_EQ(cache_->find(one.key), nullptr);

  // A start that only brings the flags back: the entry decides.
  Block& two = block(0x2000);
  two.start_to_entry = true;
  cache_->kill(two);
  EXPECT_EQ(two.start[0], 0x90);
  EXPECT_EQ(jump_target(two.entry()), two.start + two.stale_offset);
}

TEST_F(CodeCacheTest, ChainedJumpsAreTakenBack) {
  Block& target = block(0x1000);
  // Two jumps that lead to their own ends.
  Emitter out(cache_->write_position(), cache_->run_position(), 64);
  std::array<const uint8_t*, 2> slots{};
  for (const uint8_t*& slot : slots) {
    out.align(4, 1);
    const size_t at = out.jump_later();
    out.land(at);
    slot = cache_->run_position() + at;
  }
  cache_->advance(64);
  for (int round = 0; round < 3; ++round) {
    for (const uint8_t* slot : slots) cache_->chain(slot, target);
    cache_->chain(slots[0], target);  // again: nothing new
    for (const uint8_t* slot : slots) EXPECT_EQ(jump_target(slot - 1), target.entry());
    cache_->suspend(target);
    for (const uint8_t* slot : slots) EXPECT_EQ(jump_target(slot - 1), slot + 4);
    cache_->resume(target);
  }
}

TEST_F(CodeCacheTest, PointsAreFoundAgain) {
  const std::vector<HostPoint> points{{8, 0, 0}, {9, 15, 1}, {300, 16, 0}, {1200, 20, 1}, {1200, 24, 0}, {1455, 25, 0}};
  block(0x1000);
  const Block& one = block(0x2000, 2000, points);
  for (const HostPoint& point : points) {
    if (point.guest_offset == 20) continue;  // has no bytes of its own
    for (const unsigned at : {point.host_offset + 0u, point.host_offset + (point.guest_offset == 0 ? 0u : 1u)}) {
      if (at == 9 && point.guest_offset == 0) continue;
      const HostPoint found = cache_->point_at(one, one.start + at);
      EXPECT_EQ(found.host_offset, point.host_offset);
      EXPECT_EQ(found.guest_offset, point.guest_offset);
      EXPECT_EQ(found.flags_in_memory, point.flags_in_memory);
    }
  }
  EXPECT_EQ(cache_->block_at(one.start + 1999), &one);
}

TEST_F(CodeCacheTest, GrowsOnlyForWhatHasToBeMadeAgain) {
  fill(0);
  const size_t first = cache_->bytes_used();
  EXPECT_LT(first, cache_size / 2);
  // Other code each time.
  EXPECT_EQ(filled(0x10'0000), first);
  EXPECT_EQ(filled(0x20'0000), first);
  // The same again: known by the next drop.
  EXPECT_EQ(filled(0x20'0000), first);
  EXPECT_GT(filled(0x20'0000), first + first / 2);
  EXPECT_GT(filled(0x20'0000), 2 * (first + first / 4));
  EXPECT_LE(cache_->bytes_used(), cache_size);
}

TEST_F(CodeCacheTest, WritesKillWhatTheyTouch) {
  Block& one = block(0x1000);
  Block& two = block(0x1010);
  EXPECT_FALSE(cache_->written(0x1008, 8));
  EXPECT_TRUE(cache_->written(0x1013, 1));
  EXPECT_TRUE(one.alive);
  EXPECT_FALSE(two.alive);
  EXPECT_EQ(cache_->find(one.key), &one);
}

}  // namespace
}  // namespace caisson::jit
