#include "jit/translate/jump_memory.h"

#include <gtest/gtest.h>

#include <memory>

namespace caisson::jit {
namespace {

constexpr uint64_t user_rip = 0x40'1234, kernel_rip = 0xffff'ffff'8100'0040;
constexpr uint32_t mode = 2;
const uint8_t user_code = 0, kernel_code = 0;

class JumpMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    memory_->change_pcid(1, false);
    memory_->put(user_rip, mode, true, &user_code);
    memory_->put(kernel_rip, mode, false, &kernel_code);
  }
  [[nodiscard]] bool user_known() const { return memory_->find(user_rip, mode, true) == &user_code; }
  [[nodiscard]] bool kernel_known() const { return memory_->find(kernel_rip, mode, false) == &kernel_code; }

  std::unique_ptr<JumpMemory> memory_ = std::make_unique<JumpMemory>();
};

TEST_F(JumpMemoryTest, FindsWhatWasPutAndNothingElse) {
  EXPECT_TRUE(user_known());
  EXPECT_TRUE(kernel_known());
  EXPECT_EQ(memory_->find(user_rip, mode + 1, true), nullptr);
  EXPECT_EQ(memory_->find(user_rip + 1, mode, true), nullptr);
  memory_->drop(user_rip);
  EXPECT_FALSE(user_known());
}

TEST_F(JumpMemoryTest, PcidKeepsItsOwn) {
  memory_->change_pcid(2, false);
  EXPECT_FALSE(user_known());
  EXPECT_TRUE(kernel_known());
  memory_->change_pcid(1, true);
  EXPECT_TRUE(user_known());
  memory_->change_pcid(1, false);  // MOV CR3 without bit 63
  EXPECT_FALSE(user_known());
}

TEST_F(JumpMemoryTest, FlushOfAnotherPcidIsSeenOnReturn) {
  memory_->change_pcid(2, false);
  memory_->flush_pcid(1);
  memory_->change_pcid(1, true);
  EXPECT_FALSE(user_known());
}

TEST_F(JumpMemoryTest, FlushOfAllPcids) {
  memory_->change_pcid(2, false);
  memory_->flush_all_pcids();
  memory_->change_pcid(1, true);
  EXPECT_FALSE(user_known());
  EXPECT_TRUE(kernel_known());
}

TEST_F(JumpMemoryTest, FlushOfEverything) {
  EXPECT_TRUE(memory_->may_have_page(user_rip & ~0xfffull));
  memory_->flush_all(true);
  EXPECT_FALSE(user_known());
  EXPECT_FALSE(kernel_known());
  EXPECT_FALSE(memory_->may_have_page(user_rip & ~0xfffull));
}

TEST_F(JumpMemoryTest, ByPhysicalAddressUntilEverythingGoes) {
  memory_->put_physical(0x1234'5678, mode, &user_code);
  memory_->change_pcid(2, false);
  memory_->flush_all_pcids();
  EXPECT_EQ(memory_->find_physical(0x1234'5678, mode), &user_code);
  EXPECT_EQ(memory_->find_physical(0x1234'5678, mode + 1), nullptr);
  EXPECT_EQ(memory_->find_physical(0x1234'5679, mode), nullptr);
  EXPECT_EQ(memory_->find(0x1234'5678, mode, true), nullptr);
  memory_->flush_all(true);
  EXPECT_EQ(memory_->find_physical(0x1234'5678, mode), &user_code);
  memory_->forget_physical();
  EXPECT_EQ(memory_->find_physical(0x1234'5678, mode), nullptr);
}

TEST_F(JumpMemoryTest, TwoPhysicalAddressesOfOnePlace) {
  const uint8_t third_code = 0;
  memory_->put_physical(0x5678, mode, &user_code);
  memory_->put_physical(0x5678, mode + 1, &kernel_code);
  EXPECT_EQ(memory_->find_physical(0x5678, mode), &user_code);
  EXPECT_EQ(memory_->find_physical(0x5678, mode + 1), &kernel_code);
  memory_->put_physical(0x5678, mode + 1, &third_code);  // again: nothing is pushed out
  EXPECT_EQ(memory_->find_physical(0x5678, mode), &user_code);
  EXPECT_EQ(memory_->find_physical(0x5678, mode + 1), &third_code);
  memory_->put_physical(0x5678, mode + 2, &kernel_code);
  EXPECT_EQ(memory_->find_physical(0x5678, mode), nullptr);
  EXPECT_EQ(memory_->find_physical(0x5678, mode + 1), &third_code);
}

}  // namespace
}  // namespace caisson::jit
