#include "store/store.h"

#include <cstdlib>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/files.h"

namespace caisson::store {
namespace {

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("TMPDIR");
    path_ = std::string{folder != nullptr ? folder : "/tmp"} + "/caisson-store-XXXXXX";
    ASSERT_NE(::mkdtemp(path_.data()), nullptr);
    auto store = Store::open_at(path_ + "/vms");
    ASSERT_TRUE(store);
    store_.emplace(std::move(*store));
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(path_)); }

  static VmSpec spec(bool transient = false) {
    VmSpec spec;
    spec.kernel = "/boot/vmlinuz";
    spec.transient = transient;
    return spec;
  }
  Result<Store::Draft> make(std::string_view name, bool transient = false) {
    auto draft = store_->begin(name);
    if (!draft) return draft;
    return store_->finish(std::move(*draft), spec(transient));
  }
  std::vector<std::string> names() const { return store_->names().value_or(std::vector<std::string>{"?"}); }
  bool empty() const { return ::rmdir((path_ + "/vms").c_str()) == 0; }

  std::string path_;
  std::optional<Store> store_;
};

TEST_F(StoreTest, AMachineIsThereWhenItIsFinished) {
  auto draft = store_->begin("one");
  ASSERT_TRUE(draft);
  EXPECT_TRUE(names().empty());
  EXPECT_FALSE(store_->find("one"));
  auto made = store_->finish(std::move(*draft), spec());
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(names(), std::vector<std::string>{"one"});
  EXPECT_EQ(made->folder.spec().value_or(VmSpec{}), spec());
  // The lock of the draft is the machine's.
  EXPECT_EQ(made->folder.try_lock().value_or(Fd{::dup(0)}), std::nullopt);
  ASSERT_TRUE(store_->remove(made->folder, made->lock));
  EXPECT_TRUE(empty());
}

TEST_F(StoreTest, OneOfTwoOfANameIsMade) {
  auto first = store_->begin("one");
  auto second = store_->begin("one");
  ASSERT_TRUE(first && second);
  ASSERT_TRUE(store_->finish(std::move(*second), spec()));
  const auto late = store_->finish(std::move(*first), spec());
  ASSERT_FALSE(late);
  EXPECT_NE(late.error().message.find("caisson rm one"), std::string::npos);
  EXPECT_EQ(names(), std::vector<std::string>{"one"});
}

TEST_F(StoreTest, WhatKilledCommandsLeftIsSwept) {
  {
    auto dead = store_->begin("dead");
    ASSERT_TRUE(dead);
    dead->lock.reset();  // as its process's end does
    auto alive = store_->begin("alive");
    ASSERT_TRUE(alive);
    ASSERT_TRUE(::mkdir((path_ + "/vms/.gone-x.1.1").c_str(), 0700) == 0);
    store_->sweep();
    EXPECT_NE(::access(dead->folder.path().c_str(), F_OK), 0);
    EXPECT_EQ(::access(alive->folder.path().c_str(), F_OK), 0);
    store_->give_up(std::move(*alive));
  }
  EXPECT_TRUE(empty());
}

TEST_F(StoreTest, TransientMachinesGoWithTheirProcess) {
  {
    auto made = make("passing", true);
    ASSERT_TRUE(made);
    auto life = made->folder.take_life();
    ASSERT_TRUE(life && *life);
    made->lock.reset();
    store_->sweep();
    EXPECT_EQ(names(), std::vector<std::string>{"passing"});
  }
  store_->sweep();
  EXPECT_TRUE(names().empty());
  EXPECT_TRUE(empty());
}

TEST_F(StoreTest, LifeIsHeldByOneAtATime) {
  auto made = make("one");
  ASSERT_TRUE(made);
  const VmFolder& folder = made->folder;
  EXPECT_FALSE(folder.alive());
  EXPECT_TRUE(folder.wait_for_end(0));
  {
    auto life = folder.take_life();
    ASSERT_TRUE(life && *life);
    EXPECT_TRUE(folder.alive());
    EXPECT_FALSE(folder.wait_for_end(0));
    auto second = folder.take_life();
    ASSERT_TRUE(second);
    EXPECT_FALSE(*second);
    // It lives on in whoever was given the descriptor.
    const Fd given{::dup((*life)->get())};
    (*life)->reset();
    EXPECT_TRUE(folder.alive());
  }
  EXPECT_FALSE(folder.alive());
}

TEST_F(StoreTest, RenamesAndRefusesWhatIsThere) {
  auto one = make("one");
  auto two = make("two");
  ASSERT_TRUE(one && two);
  EXPECT_FALSE(store_->rename(one->folder, one->lock, "two"));
  EXPECT_FALSE(store_->rename(one->folder, one->lock, "../x"));
  ASSERT_TRUE(store_->rename(one->folder, one->lock, "three"));
  EXPECT_EQ(names(), (std::vector<std::string>{"three", "two"}));
  // Who still knows it by its old name is told.
  one->lock.reset();
  EXPECT_FALSE(one->folder.try_lock());
}

TEST_F(StoreTest, TheLastLifeIsWhatTheEventsSay) {
  auto made = make("one");
  ASSERT_TRUE(made);
  EXPECT_FALSE(made->folder.last_life().started_ms);
  const auto append = [&](std::string_view text) {
    auto events = made->folder.open_events();
    ASSERT_TRUE(events);
    ASSERT_EQ(::write(events->get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  };
  append(control::serialise(control::Event{control::Started{"jit", "host", 1, 1 << 20, ""}}, 1000) + "\n");
  EXPECT_EQ(made->folder.last_life().started_ms, 1000u);
  EXPECT_FALSE(made->folder.last_life().exited);
  append(control::serialise(control::Event{control::Exited{control::ExitReason::Panic, 0, ""}}, 2000) + "\n{\"at\":3");
  auto life = made->folder.last_life();
  ASSERT_TRUE(life.exited);
  EXPECT_EQ(life.exited->reason, control::ExitReason::Panic);
  EXPECT_EQ(life.ended_ms, 2000u);
  // After a line that was cut short the next one stands alone.
  append(control::serialise(control::Event{control::Started{"jit", "host", 1, 1 << 20, ""}}, 4000) + "\n");
  life = made->folder.last_life();
  EXPECT_EQ(life.started_ms, 4000u);
  EXPECT_FALSE(life.exited);
}

TEST_F(StoreTest, AFolderWithoutConfigurationIsNoMachine) {
  ASSERT_EQ(::mkdir((path_ + "/vms/old").c_str(), 0700), 0);
  EXPECT_TRUE(names().empty());
  EXPECT_FALSE(store_->find("old"));
  EXPECT_TRUE(store_->has("old"));
  EXPECT_FALSE(make("old")) << "it may hold somebody's disk";
  EXPECT_EQ(::access((path_ + "/vms/old").c_str(), F_OK), 0);
}

}  // namespace
}  // namespace caisson::store
