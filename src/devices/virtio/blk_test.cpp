#include "devices/virtio/blk.h"

#include <gtest/gtest.h>

#include "devices/virtio/fake_backends.h"
#include "devices/virtio/test_machine.h"

namespace caisson::virtio {
namespace {

constexpr unsigned slot = 1;
constexpr Gpa header = 0x50'0000;
constexpr Gpa data = 0x51'0000;
constexpr Gpa status_byte = 0x60'0000;
constexpr uint8_t untouched = 0xee;
constexpr uint64_t every_feature = Blk::flush | Blk::config_wce | Blk::discard | Blk::write_zeroes | Blk::blk_size;

enum Type : uint32_t { In = 0, Out = 1, Flush = 4, GetId = 8, Discard = 11, WriteZeroes = 13, SecureErase = 14 };
enum Answer : uint8_t { Ok = 0, IoError = 1, Unsupported = 2 };

class BlkFixture {
 public:
  explicit BlkFixture(RingChoice choice = ring_choices[0], uint64_t features = every_feature, bool read_only = false,
                      unsigned queues = 1)
      : disk(1 << 20, read_only), indirect(choice.indirect) {
    for (size_t i = 0; i < disk.contents.size(); ++i) disk.contents[i] = static_cast<uint8_t>(i / 512 + i);
    blk = &add_blk(machine.bridge, machine.services, disk, {.queues = queues});
    driver.emplace(machine, slot);
    driver->enable_msix();
    driver->start(choice.features | features, queues);
    EXPECT_EQ(driver->status() & status::needs_reset, 0);
  }

  // Adds and kicks; header and status lie `index` apart, so that several can be in flight.
  uint16_t request(uint32_t type, uint64_t sector, std::vector<DriverQueue::Buffer> buffers, unsigned index = 0,
                   unsigned on = 0) {
    DriverQueue& queue = driver->queues[on];
    queue.put<uint32_t>(header + 16 * index, type);
    queue.put<uint32_t>(header + 16 * index + 4, 0);
    queue.put<uint64_t>(header + 16 * index + 8, sector);
    queue.put<uint8_t>(status_byte + index, untouched);
    buffers.insert(buffers.begin(), {header + 16 * index, 16, false});
    buffers.push_back({status_byte + index, 1, true});
    const uint16_t id = queue.add(buffers, indirect);
    driver->kick(on);
    return id;
  }
  uint8_t answer(unsigned index = 0) { return driver->queues[0].get<uint8_t>(status_byte + index); }
  void range(unsigned index, uint64_t sector, uint32_t sectors, uint32_t flags) {
    DriverQueue& queue = driver->queues[0];
    queue.put<uint64_t>(data + 16 * index, sector);
    queue.put<uint32_t>(data + 16 * index + 8, sectors);
    queue.put<uint32_t>(data + 16 * index + 12, flags);
  }
  // The request at hand is answered at once, with that status and without the backend.
  void expect_refused(Answer expected) {
    EXPECT_TRUE(disk.waiting.empty());
    EXPECT_EQ(answer(), expected);
    EXPECT_TRUE(driver->queues[0].take_used());
    EXPECT_EQ(driver->status() & status::needs_reset, 0);
  }

  FakeDisk disk;
  TestMachine machine;
  std::optional<TestDriver> driver;
  Blk* blk = nullptr;  // the bridge's
  const bool indirect;
};

class BlkEachRing : public EachRing {};

TEST_P(BlkEachRing, ReadsAndWritesOverManySegments) {
  BlkFixture f(GetParam());
  DriverQueue& queue = f.driver->queues[0];
  for (unsigned round = 0; round < 40; ++round) {
    const uint64_t sector = round * 3;
    f.request(Type::In, sector, {{data, 100, true}, {data + 0x1001, 412, true}, {data + 0x3000, 1024, true}});
    ASSERT_EQ(f.disk.waiting.size(), 1u);
    EXPECT_FALSE(queue.take_used());
    EXPECT_EQ(f.answer(), untouched);
    f.disk.complete();
    auto used = queue.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, 1537u);
    EXPECT_EQ(f.answer(), Answer::Ok);
    EXPECT_EQ(queue.get<uint8_t>(data + 99), f.disk.contents[sector * 512 + 99]);
    EXPECT_EQ(queue.get<uint8_t>(data + 0x1001), f.disk.contents[sector * 512 + 100]);
    EXPECT_EQ(queue.get<uint8_t>(data + 0x3000 + 1023), f.disk.contents[sector * 512 + 1535]);

    queue.put<uint8_t>(data + 511, static_cast<uint8_t>(round));
    f.request(Type::Out, sector + 1, {{data, 512}, {data + 0x1000, 512}});
    ASSERT_EQ(f.disk.waiting.size(), 1u);
    f.disk.complete();
    used = queue.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, 1u);
    EXPECT_EQ(f.answer(), Answer::Ok);
    EXPECT_EQ(f.disk.contents[(sector + 1) * 512 + 511], round);
  }
  EXPECT_GE(f.machine.msi.messages.size(), 80u);
  EXPECT_EQ(f.machine.msi.messages[0].data, 0x41u);
}

TEST_P(BlkEachRing, CompletesOutOfOrder) {
  BlkFixture f(GetParam());
  const uint16_t first = f.request(Type::In, 0, {{data, 512, true}}, 0);
  const uint16_t second = f.request(Type::In, 1, {{data + 512, 512, true}}, 1);
  ASSERT_EQ(f.disk.waiting.size(), 2u);
  f.disk.complete(1);
  EXPECT_EQ(f.answer(0), untouched);
  EXPECT_EQ(f.answer(1), Answer::Ok);
  EXPECT_EQ(f.driver->queues[0].take_used()->id, second);
  f.disk.complete(0, EIO);
  EXPECT_EQ(f.answer(0), Answer::IoError);
  const auto used = f.driver->queues[0].take_used();
  EXPECT_EQ(used->id, first);
  EXPECT_EQ(used->length, 0u);
}

INSTANTIATE_TEST_SUITE_P(, BlkEachRing, testing::ValuesIn(ring_choices), ring_name);

TEST(Blk, ConfigurationSaysWhatTheDiskIs) {
  BlkFixture f;
  EXPECT_EQ(f.driver->device_config(0, 8), 2048u);
  EXPECT_EQ(f.driver->device_config(12, 4), 254u);
  EXPECT_EQ(f.driver->device_config(20, 4), 512u);
  EXPECT_EQ(f.driver->device_config(24, 1), 3u);  // 4096-byte physical blocks
  EXPECT_EQ(f.driver->device_config(34, 2), 1u);
  EXPECT_EQ(f.driver->device_config(59, 8), 0u);  // over the end
  EXPECT_EQ(f.driver->offered() & Blk::read_only, 0u);
  EXPECT_EQ(f.driver->offered() & Blk::mq, 0u);
  BlkFixture locked(ring_choices[0], Blk::flush, true);
  EXPECT_EQ(locked.driver->offered() & (Blk::read_only | Blk::discard | Blk::config_wce), Blk::read_only);
}

TEST(Blk, WhatAKickBringsIsABatchThatMayBeDoneAtItsEnd) {
  BlkFixture f(ring_choices[0], every_feature, false, 2);
  f.disk.at_once = true;
  f.request(Type::Out, 0, {{data, 512}}, 0, 1);
  EXPECT_EQ(f.disk.batches, f.disk.batches_ended);
  EXPECT_EQ(f.answer(), Answer::Ok);
  EXPECT_TRUE(f.driver->queues[1].take_used());
  EXPECT_FALSE(f.machine.msi.messages.empty());
  // A write-through one flushes after that, which the batch is over for.
  f.driver->write(VirtioPci::device_offset + 32, 1, 0);
  f.request(Type::Out, 0, {{data, 512}}, 0, 1);
  EXPECT_EQ(f.answer(), untouched);
  ASSERT_EQ(f.disk.waiting.size(), 1u);
  f.disk.complete();
  EXPECT_EQ(f.answer(), Answer::Ok);
  // A driver that breaks a rule in the middle of it.
  f.driver->queues[1].add({{header, 15}, {status_byte, 1, true}});
  f.driver->kick(1);
  EXPECT_EQ(f.driver->status() & status::needs_reset, status::needs_reset);
  EXPECT_EQ(f.disk.batches, f.disk.batches_ended);
}

TEST(Blk, HasAQueueForEachCpuUpToABound) {
  for (const auto& [cpus, queues] : {std::pair{1u, 1u}, {2u, 2u}, {64u, Blk::most_queues}}) {
    FakeDisk disk(1 << 20, false);
    TestMachine machine;
    Services services = machine.services;
    services.cpus = cpus;
    Blk& blk = add_blk(machine.bridge, services, disk);
    EXPECT_EQ(blk.queue_count(), queues);
    EXPECT_EQ((blk.features() & Blk::mq) != 0, queues > 1);
    TestDriver driver(machine, slot);
    driver.enable_msix();
    driver.start(Blk::flush, 1);  // one that knows of one queue only
    EXPECT_EQ(driver.device_config(34, 2), queues);
    driver.queues[0].put<uint32_t>(header, Type::Flush);
    driver.queues[0].add({{header, 16}, {status_byte, 1, true}});
    driver.kick(0);
    ASSERT_EQ(disk.waiting.size(), 1u);
    disk.complete();
    EXPECT_TRUE(driver.queues[0].take_used());
  }
}

TEST(Blk, ADiskThatGrewTellsTheDriverAndHasNewSectors) {
  BlkFixture f;
  f.disk.contents.resize(2 << 20);
  const size_t messages = f.machine.msi.messages.size();
  {
    const std::lock_guard hold(f.machine.bus.lock());
    f.blk->size_changed();
  }
  EXPECT_EQ(f.machine.msi.messages.size(), messages + 1);
  EXPECT_EQ(f.driver->device_config(0, 8), 4096u);
  f.request(Type::In, 4095, {{data, 512, true}});
  f.disk.complete();
  EXPECT_EQ(f.answer(), Ok);
}

TEST(Blk, HeaderDataAndStatusMayLieInAnySegments) {
  BlkFixture f;
  DriverQueue& queue = f.driver->queues[0];
  queue.put<uint32_t>(header, Type::In);
  queue.put<uint64_t>(header + 8, 5);
  queue.add(
      {{header, 3}, {header + 3, 13}, {data, 511, true}, {data + 511, 2, true}});  // last data byte with the status
  f.driver->kick(0);
  ASSERT_EQ(f.disk.waiting.size(), 1u);
  f.disk.complete();
  EXPECT_EQ(queue.get<uint8_t>(data + 512), Answer::Ok);
  EXPECT_EQ(queue.get<uint8_t>(data + 511), f.disk.contents[5 * 512 + 511]);
  EXPECT_EQ(queue.take_used()->length, 513u);
}

TEST(Blk, RefusesWhatIsNotOnTheDisk) {
  BlkFixture f;
  for (const uint64_t sector : {uint64_t{2048}, uint64_t{2047}, ~uint64_t{0}, ~uint64_t{0} / 512, uint64_t{1} << 55}) {
    f.request(Type::In, sector, {{data, 1024, true}});
    f.expect_refused(Answer::IoError);
    f.request(Type::Out, sector, {{data, 1024}});
    f.expect_refused(Answer::IoError);
  }
  f.request(Type::In, 0, {{data, 513, true}});
  f.expect_refused(Answer::IoError);
  f.request(Type::In, 2048, {});
  f.expect_refused(Answer::Ok);
  f.request(SecureErase, 0, {{data, 16}});
  f.expect_refused(Answer::Unsupported);
  f.request(0xffff'ffff, 0, {});
  f.expect_refused(Answer::Unsupported);
}

TEST(Blk, ReadOnlyDisksRefuseChanges) {
  BlkFixture f(ring_choices[0], Blk::flush, true);
  f.request(Type::Out, 0, {{data, 512}});
  f.expect_refused(Answer::IoError);
  f.range(0, 0, 1, 0);
  f.request(Type::Discard, 0, {{data, 16}});
  f.expect_refused(Answer::Unsupported);
}

TEST(Blk, GetIdIsTwentyBytesAtMost) {
  BlkFixture f;
  f.driver->queues[0].put<uint64_t>(data + 20, 0x7777);
  f.request(Type::GetId, 0, {{data, 20, true}});
  EXPECT_EQ(f.driver->queues[0].take_used()->length, 21u);
  std::array<char, 20> id{};
  EXPECT_TRUE(f.machine.memory->read_object(data, id));
  EXPECT_EQ(std::string_view(id.data(), 20), "fake-disk-0123456789");
  EXPECT_EQ(f.driver->queues[0].get<uint64_t>(data + 20), 0x7777u);
  f.request(Type::GetId, 0, {{data, 4, true}});
  EXPECT_EQ(f.answer(), Answer::Ok);
}

TEST(Blk, FlushReachesTheBackend) {
  BlkFixture f;
  f.request(Type::Flush, 0, {});
  ASSERT_EQ(f.disk.waiting.size(), 1u);
  EXPECT_EQ(f.disk.waiting[0].op, BlockOp::Flush);
  EXPECT_EQ(f.answer(), untouched);
  f.disk.complete();
  EXPECT_EQ(f.answer(), Answer::Ok);
}

TEST(Blk, WriteThroughFlushesAfterEachWrite) {
  // Without the flush feature, and with the cache switched off by the driver.
  for (const uint64_t features : {uint64_t{0}, Blk::flush | Blk::config_wce}) {
    BlkFixture f(ring_choices[0], features);
    if (features != 0) {
      EXPECT_EQ(f.driver->device_config(32, 1), 1u);
      f.driver->write(VirtioPci::device_offset + 32, 1, 0);
      EXPECT_EQ(f.driver->device_config(32, 1), 0u);
    }
    f.request(Type::Out, 0, {{data, 512}});
    f.disk.complete();
    EXPECT_EQ(f.answer(), untouched);
    ASSERT_EQ(f.disk.waiting.size(), 1u);
    EXPECT_EQ(f.disk.waiting[0].op, BlockOp::Flush);
    f.disk.complete();
    EXPECT_EQ(f.answer(), Answer::Ok);
  }
  BlkFixture cached;
  cached.request(Type::Out, 0, {{data, 512}});
  cached.disk.complete();
  EXPECT_EQ(cached.answer(), Answer::Ok);
  EXPECT_TRUE(cached.disk.waiting.empty());
}

TEST(Blk, DiscardAndWriteZeroesOverSeveralRanges) {
  BlkFixture f;
  f.range(0, 4, 4, 0);
  f.range(1, 100, 1, 0);
  f.request(Type::Discard, 0, {{data, 32}});
  ASSERT_EQ(f.disk.waiting.size(), 2u);
  EXPECT_EQ(f.disk.waiting[1].offset, 51200u);
  f.disk.complete();
  EXPECT_EQ(f.answer(), untouched);
  f.disk.complete();
  EXPECT_EQ(f.answer(), Answer::Ok);
  EXPECT_EQ(f.disk.contents[4 * 512], 0xdd);

  f.range(0, 10, 2, 1);
  f.request(Type::WriteZeroes, 0, {{data, 16}});
  ASSERT_EQ(f.disk.waiting.size(), 1u);
  EXPECT_TRUE(f.disk.waiting[0].may_unmap);
  f.disk.complete();
  EXPECT_EQ(f.disk.contents[10 * 512 + 77], 0);
}

TEST(Blk, BadRangesAreRefused) {
  BlkFixture f;
  f.range(0, 2047, 2, 0);
  f.request(Type::Discard, 0, {{data, 16}});
  f.expect_refused(Answer::IoError);
  f.range(0, ~uint64_t{0}, 1, 0);
  f.request(Type::WriteZeroes, 0, {{data, 16}});
  f.expect_refused(Answer::IoError);
  f.range(0, 0, 0xffff'ffff, 0);
  f.request(Type::WriteZeroes, 0, {{data, 16}});
  f.expect_refused(Answer::IoError);
  f.range(0, 0, 1, 1);  // unmap makes no sense in a discard
  f.request(Type::Discard, 0, {{data, 16}});
  f.expect_refused(Answer::Unsupported);
  f.range(0, 0, 1, 2);
  f.request(Type::WriteZeroes, 0, {{data, 16}});
  f.expect_refused(Answer::Unsupported);
  f.request(Type::Discard, 0, {{data, 17}});
  f.expect_refused(Answer::IoError);
  f.request(Type::Discard, 0, {{data, 16 * (Blk::max_ranges + 1)}});
  f.expect_refused(Answer::IoError);
  f.request(Type::Discard, 0, {});
  f.expect_refused(Answer::IoError);
  f.range(0, 5, 0, 0);
  f.request(Type::Discard, 0, {{data, 16}});
  f.expect_refused(Answer::Ok);
}

TEST(Blk, RequestsWithoutHeaderOrStatusBreakTheDevice) {
  for (const std::vector<DriverQueue::Buffer>& buffers :
       {std::vector<DriverQueue::Buffer>{{header, 15}, {status_byte, 1, true}},
        std::vector<DriverQueue::Buffer>{{header, 16}}, std::vector<DriverQueue::Buffer>{{status_byte, 1, true}},
        std::vector<DriverQueue::Buffer>{{header, 0}}}) {
    BlkFixture f;
    f.driver->queues[0].add(buffers);
    f.driver->kick(0);
    EXPECT_EQ(f.driver->status() & status::needs_reset, status::needs_reset);
    EXPECT_TRUE(f.disk.waiting.empty());
  }
}

TEST(Blk, ADriverCannotHaveMoreInFlightThanItsQueueHolds) {
  BlkFixture f;
  f.request(Type::In, 0, {{data, 512, true}});
  DriverQueue& queue = f.driver->queues[0];
  for (unsigned i = 1; i < 40; ++i) {
    queue.put_available(0);  // the same head again and again
    f.driver->kick(0);
  }
  EXPECT_EQ(f.disk.waiting.size(), 16u);
  EXPECT_EQ(f.driver->status() & status::needs_reset, status::needs_reset);
  f.disk.complete_all();  // into a device that has failed
  EXPECT_FALSE(queue.take_used());
}

TEST(Blk, ResetDrainsAndDropsWhatIsInFlight) {
  BlkFixture f;
  f.request(Type::In, 0, {{data, 512, true}});
  f.request(Type::Out, 0, {{data, 512}}, 1);
  f.driver->set_status(0);
  EXPECT_EQ(f.driver->status(), 0);
  EXPECT_TRUE(f.disk.waiting.empty());
  EXPECT_EQ(f.answer(0), untouched);
  EXPECT_TRUE(f.machine.msi.messages.empty());
  f.driver->start(every_feature, 1);
  f.request(Type::In, 3, {{data, 512, true}});
  f.disk.complete();
  EXPECT_EQ(f.answer(), Answer::Ok);
}

TEST(Blk, QuiesceAndLosingBusMasteringCompleteWhatIsInFlight) {
  BlkFixture f(ring_choices[0], 0);  // write-through: a flush follows within the drain
  f.request(Type::Out, 0, {{data, 512}});
  f.machine.device(slot).quiesce();
  EXPECT_EQ(f.answer(), Answer::Ok);
  EXPECT_EQ(f.disk.log, (std::vector{BlockOp::Write, BlockOp::Flush}));
  ASSERT_TRUE(f.driver->queues[0].take_used());
  f.request(Type::In, 0, {{data, 512, true}});
  f.machine.set_config(slot, pci::command, 1, pci::command_memory);
  EXPECT_TRUE(f.disk.waiting.empty());
  EXPECT_EQ(f.answer(), Answer::Ok);
}

TEST(Blk, DestructionWithRequestsInFlight) {
  FakeDisk disk(1 << 20);
  {
    TestMachine machine;
    add_blk(machine.bridge, machine.services, disk);
    TestDriver driver(machine, slot);
    driver.start(0, 1);
    driver.queues[0].put<uint64_t>(header, 0);
    driver.queues[0].put<uint64_t>(header + 8, 0);
    driver.queues[0].add({{header, 16}, {data, 512, true}, {status_byte, 1, true}});
    driver.kick(0);
    EXPECT_EQ(disk.waiting.size(), 1u);
  }
  EXPECT_TRUE(disk.waiting.empty());
}

TEST(Blk, SeveralQueuesWorkSideBySide) {
  BlkFixture f(ring_choices[1], every_feature, false, 4);
  EXPECT_EQ(f.driver->device_config(34, 2), 4u);
  for (unsigned i = 0; i < 4; ++i) f.request(Type::In, i, {{data + 512 * i, 512, true}}, i, i);
  ASSERT_EQ(f.disk.waiting.size(), 4u);
  f.disk.complete_all();
  ASSERT_EQ(f.machine.msi.messages.size(), 4u);
  for (unsigned i = 0; i < 4; ++i) {
    EXPECT_TRUE(f.driver->queues[i].take_used());
    EXPECT_EQ(f.machine.msi.messages[i].data, 0x41 + i);
  }
}

}  // namespace
}  // namespace caisson::virtio
