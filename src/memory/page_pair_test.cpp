#include "memory/page_pair.h"

#include <gtest/gtest.h>

namespace caisson {
namespace {

TEST(PagePair, ShowsTwoPagesSideBySide) {
  auto memory = std::move(*GuestMemory::create(4 << 20));
  PagePair pair;
  for (const Gpa second : {Gpa{0x1000}, Gpa{0x10'0000}, Gpa{0x10'0000}, Gpa{0x2000}}) {
    uint8_t* both = pair.map(*memory, 0x2000, second);
    ASSERT_NE(both, nullptr);
    both[page_size - 1] = 0x11;
    both[page_size] = 0x22;
    EXPECT_EQ(memory->base()[0x2fff], 0x11);
    EXPECT_EQ(memory->base()[second], 0x22);
    memory->base()[second] = 0x33;
    EXPECT_EQ(both[page_size], 0x33);
  }
}

}  // namespace
}  // namespace caisson
