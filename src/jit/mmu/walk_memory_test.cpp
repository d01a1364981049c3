#include "jit/mmu/walk_memory.h"

#include <gtest/gtest.h>

#include <memory>

namespace caisson::jit {
namespace {

constexpr uint64_t page = 0x7f12'3456'7000, large_page = 0x7f20'0000'0000, kernel_page = 0xffff'8880'0001'2000;
constexpr unsigned user = 2, supervisor = 0;

class WalkMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    memory_->change_pcid(1, false);
    memory_->put(page, user, {.gpa = 0x5000, .writable = true});
    memory_->put(large_page + 0x3000, user, {.gpa = 0x60'3000, .large = true});
    memory_->put(kernel_page, supervisor, {.gpa = 0x9000, .global = true});
  }
  [[nodiscard]] bool knows(uint64_t linear, unsigned mode) const {
    WalkMemory::Found found;
    return memory_->find(linear, mode, found);
  }

  std::unique_ptr<WalkMemory> memory_ = std::make_unique<WalkMemory>();
};

TEST_F(WalkMemoryTest, FindsWhatWasPutAndNothingElse) {
  WalkMemory::Found found;
  ASSERT_TRUE(memory_->find(page, user, found));
  EXPECT_EQ(found.gpa, 0x5000u);
  EXPECT_TRUE(found.writable);
  EXPECT_FALSE(found.large);
  EXPECT_FALSE(knows(page, supervisor));
  EXPECT_FALSE(knows(page + 0x1000, user));
  EXPECT_FALSE(knows(0, supervisor));
}

TEST_F(WalkMemoryTest, LargePageServesAllItsPages) {
  WalkMemory::Found found;
  ASSERT_TRUE(memory_->find(large_page + 0x1f'f000, user, found));
  EXPECT_EQ(found.gpa, 0x7f'f000u);
  EXPECT_TRUE(found.large);
  EXPECT_FALSE(knows(large_page + 0x20'0000, user));
}

TEST_F(WalkMemoryTest, DropsAPage) {
  memory_->drop_page(page);
  EXPECT_FALSE(knows(page, user));
  EXPECT_TRUE(knows(large_page, user));
  memory_->drop_page(large_page + 0x7000);
  EXPECT_FALSE(knows(large_page, user));
  EXPECT_TRUE(knows(kernel_page, supervisor));
  memory_->drop_page(kernel_page);
  EXPECT_FALSE(knows(kernel_page, supervisor));
}

TEST_F(WalkMemoryTest, OtherPcidSeesGlobalPagesOnly) {
  memory_->change_pcid(2, true);
  EXPECT_FALSE(knows(page, user));
  EXPECT_TRUE(knows(kernel_page, supervisor));
  memory_->change_pcid(1, true);
  EXPECT_TRUE(knows(page, user));
  memory_->change_pcid(2, false);
  memory_->change_pcid(1, false);
  EXPECT_FALSE(knows(page, user));
}

TEST_F(WalkMemoryTest, DropsPcids) {
  memory_->change_pcid(2, false);
  memory_->drop_pcid(1);
  memory_->change_pcid(1, true);
  EXPECT_FALSE(knows(page, user));
  memory_->put(page, user, {.gpa = 0x5000});
  memory_->drop_pcid(1);
  EXPECT_FALSE(knows(page, user));
  memory_->put(page, user, {.gpa = 0x5000});
  memory_->change_pcid(3, true);
  memory_->drop_all_pcids();
  memory_->change_pcid(1, true);
  EXPECT_FALSE(knows(page, user));
  EXPECT_TRUE(knows(kernel_page, supervisor));
}

TEST_F(WalkMemoryTest, DropsEverything) {
  memory_->drop_all();
  EXPECT_FALSE(knows(page, user));
  EXPECT_FALSE(knows(large_page, user));
  EXPECT_FALSE(knows(kernel_page, supervisor));
}

}  // namespace
}  // namespace caisson::jit
