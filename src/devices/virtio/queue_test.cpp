#include "devices/virtio/queue.h"

#include <gtest/gtest.h>

#include "devices/virtio/test_machine.h"

namespace caisson::virtio {
namespace {

constexpr Gpa ring = 0x10'0000;
constexpr Gpa data = 0x40'0000;
constexpr uint16_t size = 8;
constexpr uint64_t all = feature::event_idx | feature::indirect_desc;

class QueueFixture {
 public:
  explicit QueueFixture(uint64_t features, uint16_t entries = size) : driver(*memory, ring, entries, features) {
    state.size = entries;
    state.enabled = true;
    state.descriptors = driver.descriptors;
    state.driver = driver.driver;
    state.device = driver.device;
    std::string_view fault;
    queue = Queue::create(*memory, state, features, fault);
    EXPECT_TRUE(queue.has_value()) << fault;
  }
  std::unique_ptr<GuestMemory> memory = std::move(GuestMemory::create(16 << 20).value());
  DriverQueue driver;
  QueueState state;
  std::optional<Queue> queue;
  Chain chain;
};

class QueueEachRing : public EachRing {};

TEST_P(QueueEachRing, ChainsGoRoundManyTimesOutOfOrder) {
  QueueFixture f(GetParam().features);
  unsigned done = 0;
  for (unsigned round = 0; round < 100; ++round) {
    std::vector<uint16_t> ids;
    std::vector<Ticket> tickets;
    for (unsigned i = 0; i < 2; ++i) {
      const uint32_t length = 100 + round;
      ids.push_back(
          f.driver.add({{data, 16}, {data + 0x1000, length}, {data + 0x2000, length + i, true}}, GetParam().indirect));
    }
    for (unsigned i = 0; i < 2; ++i) {
      ASSERT_EQ(f.queue->pop(f.chain), Queue::Popped::Chain) << f.queue->fault();
      EXPECT_EQ(f.chain.readable.size(), 2u);
      EXPECT_EQ(f.chain.readable_length, 116 + round);
      EXPECT_EQ(f.chain.writable_length, 100 + round + i);
      EXPECT_EQ(f.chain.writable[0].address, data + 0x2000);
      tickets.push_back(f.chain.ticket);
    }
    EXPECT_EQ(f.queue->pop(f.chain), Queue::Popped::Empty);
    f.queue->push(tickets[1], 7);
    f.queue->push(tickets[0], 5);
    auto used = f.driver.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, ids[1]);
    EXPECT_EQ(used->length, 7u);
    used = f.driver.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, ids[0]);
    EXPECT_EQ(used->length, 5u);
    EXPECT_FALSE(f.driver.take_used());
    done += 2;
  }
  EXPECT_EQ(done, 200u);
}

TEST_P(QueueEachRing, UnpopGivesTheSameChainsAgain) {
  QueueFixture f(GetParam().features);
  for (unsigned round = 0; round < 20; ++round) {
    f.driver.add({{data, 10}, {data, 1, true}}, GetParam().indirect);
    f.driver.add({{data, 20}, {data, 1, true}}, GetParam().indirect);
    Chain second;
    for (unsigned again = 0; again < 3; ++again) {
      ASSERT_EQ(f.queue->pop(f.chain), Queue::Popped::Chain);
      ASSERT_EQ(f.queue->pop(second), Queue::Popped::Chain);
      EXPECT_EQ(f.chain.readable_length, 10u);
      EXPECT_EQ(second.readable_length, 20u);
      if (again == 2) break;
      f.queue->unpop(second);
      f.queue->unpop(f.chain);
    }
    f.queue->push(std::array{Used{f.chain.ticket, 1}, Used{second.ticket, 2}});
    ASSERT_TRUE(f.driver.take_used());
    ASSERT_TRUE(f.driver.take_used());
  }
}

TEST_P(QueueEachRing, KicksAreAskedForAndChainsInBetweenSeen) {
  QueueFixture f(GetParam().features);
  f.queue->suppress_kicks();
  EXPECT_FALSE(f.queue->allow_kicks());
  f.driver.add({{data, 10}}, GetParam().indirect);
  EXPECT_TRUE(f.queue->allow_kicks());
  ASSERT_EQ(f.queue->pop(f.chain), Queue::Popped::Chain);
  EXPECT_FALSE(f.queue->allow_kicks());
}

INSTANTIATE_TEST_SUITE_P(, QueueEachRing, testing::ValuesIn(ring_choices), ring_name);

TEST(Queue, SplitInterruptsWhenTheDriverAsks) {
  QueueFixture f(0);
  EXPECT_FALSE(f.queue->should_signal());  // nothing pushed
  f.queue->push({}, 0);
  EXPECT_TRUE(f.queue->should_signal());
  EXPECT_FALSE(f.queue->should_signal());
  f.driver.put<uint16_t>(f.driver.driver, 1);  // VIRTQ_AVAIL_F_NO_INTERRUPT
  f.queue->push({}, 0);
  EXPECT_FALSE(f.queue->should_signal());
}

TEST(Queue, SplitEventIndexInterruptsOnlyWhenPassed) {
  QueueFixture f(all);
  const Gpa used_event = f.driver.driver + 4 + 2 * size;
  f.driver.put<uint16_t>(used_event, 2);
  f.queue->push({}, 0);
  EXPECT_FALSE(f.queue->should_signal());
  f.queue->push({}, 0);
  f.queue->push({}, 0);
  EXPECT_TRUE(f.queue->should_signal());  // index 2 was passed by the third
  f.queue->push({}, 0);
  EXPECT_FALSE(f.queue->should_signal());
  // Over the wrap of the index.
  f.state.next_used = 0xfffe;
  f.driver.put<uint16_t>(used_event, 0xffff);
  f.queue->push({}, 0);
  EXPECT_FALSE(f.queue->should_signal());
  f.queue->push({}, 0);
  EXPECT_TRUE(f.queue->should_signal());
}

TEST(Queue, PackedEventInterruptsOnlyWhenPassed) {
  QueueFixture f(all | feature::ring_packed);
  f.driver.put<uint32_t>(f.driver.driver, 1u << 16);  // disabled
  f.queue->push({}, 0);
  EXPECT_FALSE(f.queue->should_signal());
  f.driver.put<uint32_t>(f.driver.driver, 0);  // enabled
  f.queue->push({}, 0);
  EXPECT_TRUE(f.queue->should_signal());
  f.driver.put<uint32_t>(f.driver.driver, 2u << 16 | 0x8000 | 3);  // at slot 3 of the first round; now at 2
  f.queue->push({}, 0);
  EXPECT_FALSE(f.queue->should_signal());
  f.queue->push({}, 0);
  EXPECT_TRUE(f.queue->should_signal());
  f.driver.put<uint32_t>(f.driver.driver, 2u << 16 | 1);  // at slot 1 of the second round; now at 4
  for (unsigned i = 0; i < 5; ++i) {
    f.queue->push({}, 0);
    EXPECT_FALSE(f.queue->should_signal()) << i;
  }
  f.queue->push({}, 0);  // slot 1 of the second round
  EXPECT_TRUE(f.queue->should_signal());
}

TEST(Queue, SplitEventIndexIsWhereTheNextChainComes) {
  QueueFixture f(all);
  f.driver.add({{data, 1}});
  ASSERT_EQ(f.queue->pop(f.chain), Queue::Popped::Chain);
  EXPECT_FALSE(f.queue->allow_kicks());
  EXPECT_EQ(f.driver.get<uint16_t>(f.driver.device + 4 + 8 * size), 1u);
}

// --- A hostile driver ---

void expect_broken(QueueFixture& f) {
  EXPECT_EQ(f.queue->pop(f.chain), Queue::Popped::Broken);
  EXPECT_FALSE(f.queue->fault().empty());
  EXPECT_EQ(f.queue->pop(f.chain), Queue::Popped::Broken);  // for good
}

TEST(HostileSplitQueue, IndexJumps) {
  QueueFixture f(all);
  f.driver.put<uint16_t>(f.driver.driver + 2, size + 1);
  expect_broken(f);
}

TEST(HostileSplitQueue, HeadBeyondTheQueue) {
  QueueFixture f(all);
  f.driver.put_available(size);
  expect_broken(f);
}

TEST(HostileSplitQueue, NextBeyondTheTable) {
  QueueFixture f(all);
  f.driver.put_descriptor(ring, 0, data, 16, 1, size);
  f.driver.put_available(0);
  expect_broken(f);
}

TEST(HostileSplitQueue, Loops) {
  QueueFixture f(all);
  f.driver.put_descriptor(ring, 0, data, 16, 1, 1);
  f.driver.put_descriptor(ring, 1, data, 16, 1, 0);
  f.driver.put_available(0);
  expect_broken(f);
  QueueFixture self(all);
  self.driver.put_descriptor(ring, 3, data, 0, 1, 3);  // of length 0
  self.driver.put_available(3);
  expect_broken(self);
}

TEST(HostileSplitQueue, IndirectLoops) {
  QueueFixture f(all);
  f.driver.put_descriptor(ring, 0, data, 32, 4, 0);
  f.driver.put_descriptor(data, 0, data, 1, 1, 1);
  f.driver.put_descriptor(data, 1, data, 1, 1, 0);
  f.driver.put_available(0);
  expect_broken(f);
}

TEST(HostileSplitQueue, IndirectNextBeyondItsTable) {
  QueueFixture f(all);
  f.driver.put_descriptor(ring, 0, data, 16, 4, 0);
  f.driver.put_descriptor(data, 0, data, 1, 1, 1);
  f.driver.put_available(0);
  expect_broken(f);
}

TEST(HostileQueues, BadBuffersAndTables) {
  struct Case {
    const char* name;
    uint64_t address;
    uint32_t length;
    uint16_t flags;
  };
  const Case cases[] = {
      {"outside RAM", 16 << 20, 1, 0},
      {"over the end of RAM", (16 << 20) - 1, 2, 0},
      {"over the end of the address space", ~0ull, 2, 2},
      {"over the end of the address space", ~0ull - 0xffff'fffe, 0xffff'ffff, 2},
      {"in the device hole", 0xfee0'0000, 4, 2},
      {"huge", data, 0xffff'ffff, 0},
      {"indirect table empty", data, 0, 4},
      {"indirect table of odd length", data, 17, 4},
      {"indirect table outside RAM", (16 << 20) - 16, 32, 4},
      {"indirect table huge", 0, 0xffff'fff0, 4},
      {"indirect and next", data, 16, 4 | 1},
  };
  for (const uint64_t format : {uint64_t{0}, feature::ring_packed}) {
    for (const Case& each : cases) {
      QueueFixture f(all | format);
      const bool packed = format != 0;
      f.driver.put_descriptor(ring, 0, each.address, each.length,
                              static_cast<uint16_t>(each.flags | (packed ? f.driver.available_flags() : 0)), 0);
      if (!packed) f.driver.put_available(0);
      SCOPED_TRACE(each.name);
      expect_broken(f);
    }
  }
}

TEST(HostileQueues, IndirectInsideIndirectAndWithoutTheFeature) {
  for (const uint64_t format : {uint64_t{0}, feature::ring_packed}) {
    for (const uint64_t features : {format | all, format}) {
      QueueFixture f(features);
      const bool packed = format != 0;
      f.driver.put_descriptor(ring, 0, data, 16, static_cast<uint16_t>(4 | (packed ? f.driver.available_flags() : 0)),
                              0);
      f.driver.put_descriptor(data, 0, data, 16, 4, 0);
      if (!packed) f.driver.put_available(0);
      expect_broken(f);
    }
  }
}

TEST(HostileQueues, ReadableAfterWritable) {
  for (const uint64_t format : {uint64_t{0}, feature::ring_packed}) {
    QueueFixture f(all | format);
    f.driver.add({{data, 1, true}, {data, 1, false}});
    expect_broken(f);
    QueueFixture inner(all | format);
    inner.driver.add({{data, 1, true}, {data, 1, false}}, true);
    expect_broken(inner);
  }
}

TEST(HostileQueues, ChainLongerThanFourGigabytes) {
  for (const uint64_t format : {uint64_t{0}, feature::ring_packed}) {
    QueueFixture f(all | format, 512);
    std::vector<DriverQueue::Buffer> buffers(280, {0, 16 << 20, true});  // 4.4 GiB of the same 16 MiB
    f.driver.add(buffers);
    expect_broken(f);
  }
}

TEST(HostilePackedQueue, ChainThatNeverEnds) {
  QueueFixture f(all | feature::ring_packed);
  for (unsigned i = 0; i < size; ++i) {
    f.driver.put_descriptor(ring, i, data, 1, static_cast<uint16_t>(f.driver.available_flags() | 1), 0);
  }
  expect_broken(f);
}

TEST(Queue, DirectDescriptorsMayEndInAnIndirectOne) {
  QueueFixture f(all);
  f.driver.put_descriptor(ring, 0, data, 16, 1, 5);
  f.driver.put_descriptor(ring, 5, data + 0x1000, 32, 4, 0);
  f.driver.put_descriptor(data + 0x1000, 0, data, 8, 1, 1);
  f.driver.put_descriptor(data + 0x1000, 1, data, 4, 2, 0);
  f.driver.put_available(0);
  ASSERT_EQ(f.queue->pop(f.chain), Queue::Popped::Chain) << f.queue->fault();
  EXPECT_EQ(f.chain.readable_length, 24u);
  EXPECT_EQ(f.chain.writable_length, 4u);
}

TEST(Queue, CreateChecksSizeAlignmentAndPlace) {
  QueueFixture f(all);
  const auto refused = [&](auto change, uint64_t features = all) {
    QueueState state = f.state;
    change(state);
    std::string_view fault;
    const bool none = !Queue::create(*f.memory, state, features, fault);
    return none && !fault.empty();
  };
  EXPECT_FALSE(refused([](QueueState&) {}));
  EXPECT_TRUE(refused([](QueueState& s) { s.size = 0; }));
  EXPECT_TRUE(refused([](QueueState& s) { s.size = 7; }));
  EXPECT_FALSE(refused([](QueueState& s) { s.size = 7; }, feature::ring_packed | all));
  EXPECT_TRUE(refused([](QueueState& s) { s.size = 2048; }));
  EXPECT_TRUE(refused([](QueueState& s) { s.descriptors += 8; }));
  EXPECT_TRUE(refused([](QueueState& s) { s.descriptors = (16 << 20) - 16 * size + 16; }));
  EXPECT_TRUE(refused([](QueueState& s) { s.driver += 1; }));
  EXPECT_TRUE(refused([](QueueState& s) { s.driver = ~1ull; }));
  EXPECT_TRUE(refused([](QueueState& s) { s.device += 2; }));
  EXPECT_TRUE(refused([](QueueState& s) { s.device = GuestMemory::high_start; }));
  EXPECT_TRUE(refused([](QueueState& s) { s.next_used = size; }, feature::ring_packed));
}

TEST(Segments, GatherScatterAndSlice) {
  auto memory = std::move(GuestMemory::create(1 << 20).value());
  const std::vector<Segment> segments{{0x1000, 3}, {0x2000, 1}, {0x3000, 4}};
  const std::array<uint8_t, 8> bytes{1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(scatter(*memory, segments, 0, bytes), 8u);
  std::array<uint8_t, 10> back{};
  EXPECT_EQ(gather(*memory, segments, 2, back), 6u);
  EXPECT_EQ(back[0], 3);
  EXPECT_EQ(back[5], 8);
  EXPECT_EQ(gather(*memory, segments, 8, back), 0u);
  const auto part = slice(segments, 2, 3);
  ASSERT_EQ(part.size(), 3u);
  EXPECT_EQ(part[0].address, 0x1002u);
  EXPECT_EQ(part[2].length, 1u);
  EXPECT_EQ(scatter(*memory, segments, 6, bytes), 2u);
}

}  // namespace
}  // namespace caisson::virtio
