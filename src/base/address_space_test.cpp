#include "base/address_space.h"

#include <sys/mman.h>

#include <gtest/gtest.h>

namespace caisson {
namespace {

TEST(AddressSpace, BeginsWhereAHugePageDoesAndHoldsAMapping) {
  for (const size_t size : {size_t{1}, size_t{4096}, huge_page_size, 3 * huge_page_size + 4096}) {
    uint8_t* at = reserve_address_space(size);
    ASSERT_NE(at, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(at) % huge_page_size, 0u);
    ASSERT_EQ(mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), at);
    at[0] = at[size - 1] = 1;
    EXPECT_EQ(munmap(at, size), 0);
  }
}

TEST(AddressSpace, TooMuchIsNull) { EXPECT_EQ(reserve_address_space(size_t{1} << 62), nullptr); }

}  // namespace
}  // namespace caisson
