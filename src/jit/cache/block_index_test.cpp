#include "jit/cache/block_index.h"

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>

namespace caisson::jit {
namespace {

struct Key {
  uint64_t gpa = 0, rip = 0;
  uint32_t mode = 0;
  bool operator==(const Key&) const = default;
};
struct Item {
  Key key;
};

TEST(BlockIndex, FindsInsertsErases) {
  BlockIndex<Item, Key> index;
  std::deque<Item> items;
  for (uint64_t i = 0; i < 20'000; ++i) {
    items.push_back({{.gpa = i * 64, .rip = i % 7 * 4096 + i, .mode = static_cast<uint32_t>(i % 3)}});
    index.insert(&items.back());
  }
  for (Item& item : items) EXPECT_EQ(index.find(item.key), &item);
  EXPECT_EQ(index.find({.gpa = 1, .rip = 1, .mode = 1}), nullptr);
  for (size_t i = 0; i < items.size(); i += 2) index.erase(&items[i]);
  for (size_t i = 0; i < items.size(); ++i) EXPECT_EQ(index.find(items[i].key), i % 2 ? &items[i] : nullptr);
  index.clear();
  EXPECT_EQ(index.find(items[1].key), nullptr);
}

// A reader beside a writer: what stays in is always found, what is found is right.
TEST(BlockIndex, ReadersNeedNoLock) {
  BlockIndex<Item, Key> index;
  std::deque<Item> stays, comes_and_goes;
  for (uint64_t i = 0; i < 1000; ++i) stays.push_back({{.gpa = i, .rip = i}});
  for (uint64_t i = 0; i < 1000; ++i) comes_and_goes.push_back({{.gpa = i, .rip = i, .mode = 1}});
  for (Item& item : stays) index.insert(&item);
  std::atomic<bool> end{false};
  std::thread writer([&] {
    for (unsigned round = 0; round < 50; ++round) {
      for (Item& item : comes_and_goes) index.insert(&item);
      for (Item& item : comes_and_goes) index.erase(&item);
    }
    end = true;
  });
  while (!end) {
    for (Item& item : stays) ASSERT_EQ(index.find(item.key), &item);
    for (Item& item : comes_and_goes) {
      const Item* found = index.find(item.key);
      ASSERT_TRUE(found == nullptr || found == &item);
    }
  }
  writer.join();
}

}  // namespace
}  // namespace caisson::jit
