#include "memory/dirty_log.h"

#include <gtest/gtest.h>

namespace caisson {
namespace {

class Guest final : public GuestWriteLog {
 public:
  Result<> start() override {
    if (!willing) return fail("no log here");
    running = true;
    return {};
  }
  void stop() override { running = false; }
  Result<> gather(DirtyPages& into) override {
    into.add(7);
    return {};
  }
  bool willing = true, running = false;
};

class DirtyLogTest : public testing::Test {
 protected:
  static constexpr uint64_t size = uint64_t{2} << 20;
  std::unique_ptr<GuestMemory> memory_ = *GuestMemory::create(size);
  Guest guest_;
  DirtyPages pages_{size / page_size};
};

TEST_F(DirtyLogTest, NotesEachPageOfAWriteOnce) {
  auto log = DirtyLog::start(*memory_, guest_);
  ASSERT_TRUE(log);
  EXPECT_TRUE(guest_.running);
  ASSERT_TRUE(memory_->write_object<uint64_t>(0x2ffc, 1));  // two pages
  memory_->written(0x10'0000, 1);
  ASSERT_TRUE((*log)->take(pages_));
  for (const size_t page : {2, 3, 0x100, 7}) EXPECT_TRUE(pages_.contains(page)) << page;
  EXPECT_EQ(pages_.count(), 4u);
  DirtyPages next{pages_.size()};
  ASSERT_TRUE((*log)->take(next));
  EXPECT_EQ(next.count(), 1u) << "only the guest's";
  log->reset();
  EXPECT_FALSE(guest_.running);
  ASSERT_TRUE(memory_->write_object<uint64_t>(0x5000, 1));
}

TEST_F(DirtyLogTest, ClearedMemoryIsWritten) {
  auto log = DirtyLog::start(*memory_, guest_);
  ASSERT_TRUE(log);
  ASSERT_TRUE(memory_->clear());
  ASSERT_TRUE((*log)->take(pages_));
  EXPECT_EQ(pages_.count(), size / page_size);
}

TEST_F(DirtyLogTest, EngineThatCannotLogIsAnError) {
  guest_.willing = false;
  const auto log = DirtyLog::start(*memory_, guest_);
  ASSERT_FALSE(log);
  EXPECT_EQ(log.error().message, "no log here");
}

TEST(DirtyPages, LastWordIsNotOverfilled) {
  DirtyPages pages{70};
  pages.add_all();
  EXPECT_EQ(pages.count(), 70u);
}

}  // namespace
}  // namespace caisson
