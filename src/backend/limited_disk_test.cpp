#include "backend/limited_disk.h"

#include <string>
#include <vector>

#include "backend/test_support.h"

namespace caisson {
namespace {

// Does every request when it is asked to.
class Image final : public BlockBackend {
 public:
  uint64_t size() const override { return 1 << 20; }
  bool read_only() const override { return false; }
  unsigned block_size() const override { return 512; }
  std::string_view id() const override { return "image"; }
  void submit(BlockRequest request) override { under_way.push_back(std::move(request)); }
  void drain() override {
    for (BlockRequest& request : std::exchange(under_way, {})) request.done(0);
  }
  std::vector<BlockRequest> under_way;
};

class LimitedDiskTest : public test::LoopTest {
 protected:
  LimitedDiskTest() {
    auto made = std::make_unique<Image>();
    image = made.get();
    disk = std::make_unique<LimitedDisk>(*loop, std::move(made));
  }
  ~LimitedDiskTest() override {
    const std::lock_guard hold(guard);
    disk.reset();
  }
  void submit(BlockOp op, uint64_t length, int number) {
    const std::lock_guard hold(guard);
    disk->submit({.op = op, .length = length, .done = [this, number](int) { done.push_back(number); }});
  }
  void limit(const RateLimit& to) {
    const std::lock_guard hold(guard);
    disk->set_limit(to);
  }
  size_t passed() const { return image->under_way.size(); }

  Image* image = nullptr;
  std::unique_ptr<LimitedDisk> disk;
  std::vector<int> done;
};

TEST_F(LimitedDiskTest, WithoutALimitNothingWaits) {
  for (int i = 0; i < 1000; ++i) submit(BlockOp::Read, 4096, i);
  EXPECT_EQ(passed(), 1000u);
}

TEST_F(LimitedDiskTest, WhatIsTooMuchWaitsAndGoesInOrder) {
  limit({.ops_per_s = 200});
  const uint64_t start = EventLoop::now_ns();
  for (int i = 0; i < 40; ++i) submit(i % 2 == 0 ? BlockOp::Flush : BlockOp::Discard, 512, i);
  EXPECT_LT(passed(), 40u);
  ASSERT_TRUE(run_until([&] { return passed() == 40; }));
  // Twenty in the first burst, the others one each five milliseconds; later is always possible, earlier is not.
  EXPECT_GE(EventLoop::now_ns() - start, 95'000'000u);
  const std::lock_guard hold(guard);
  disk->drain();
  for (int i = 0; i < 40; ++i) ASSERT_EQ(done[static_cast<size_t>(i)], i);
}

TEST_F(LimitedDiskTest, BytesCountWhereTheyAreMoved) {
  limit({.bytes_per_s = 100'000});
  submit(BlockOp::Discard, 1 << 19, 0);
  submit(BlockOp::Flush, 0, 1);
  submit(BlockOp::Write, 1 << 19, 2);  // more than there is: those after it wait for seconds
  submit(BlockOp::Read, 512, 3);
  EXPECT_EQ(passed(), 3u);
  submit(BlockOp::Flush, 0, 4);
  run_ready();
  EXPECT_EQ(passed(), 3u) << "a flush overtook what was there before it";
}

TEST_F(LimitedDiskTest, LimitsChangeWhileRequestsWait) {
  limit({.ops_per_s = 1});
  for (int i = 0; i < 5; ++i) submit(BlockOp::Read, 512, i);
  EXPECT_EQ(passed(), 1u);
  limit({.ops_per_s = 1'000'000});
  ASSERT_TRUE(run_until([&] { return passed() == 5; }));
  limit({.ops_per_s = 1});
  for (int i = 5; i < 9; ++i) submit(BlockOp::Read, 512, i);
  EXPECT_EQ(passed(), 6u);
  limit({});
  EXPECT_EQ(passed(), 9u);
  submit(BlockOp::Read, 512, 9);
  EXPECT_EQ(passed(), 10u);
}

TEST_F(LimitedDiskTest, DrainIgnoresTheLimit) {
  limit({.bytes_per_s = 1, .ops_per_s = 1});
  for (int i = 0; i < 5; ++i) submit(BlockOp::Write, 4096, i);
  EXPECT_EQ(passed(), 1u);
  {
    const std::lock_guard hold(guard);
    disk->drain();
  }
  EXPECT_EQ(done, (std::vector<int>{0, 1, 2, 3, 4}));
  run_ready();
  EXPECT_EQ(passed(), 0u);
}

TEST_F(LimitedDiskTest, WhatWaitsAtItsEndIsDropped) {
  limit({.ops_per_s = 1});
  for (int i = 0; i < 5; ++i) submit(BlockOp::Write, 4096, i);
  {
    const std::lock_guard hold(guard);
    disk.reset();
  }
  run_ready();
  EXPECT_TRUE(done.empty());
}

}  // namespace
}  // namespace caisson
