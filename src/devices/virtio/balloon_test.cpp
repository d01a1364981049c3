// Memory balloon.
#include "devices/virtio/balloon.h"

#include <gtest/gtest.h>

#include "devices/virtio/test_machine.h"

namespace caisson::virtio {
namespace {

constexpr unsigned slot = 1;
constexpr Gpa data = 0x70'0000;
constexpr Gpa pages = 0x80'0000;

class BalloonFixture {
 public:
  explicit BalloonFixture(RingChoice choice = ring_choices[0], uint64_t features = Balloon::statistics_queue |
                                                                                   Balloon::deflate_on_oom |
                                                                                   Balloon::page_reporting)
      : balloon(add_balloon(machine.bridge, machine.services)) {
    driver.emplace(machine, slot);
    driver->enable_msix();
    driver->start(choice.features | features, 4);
    EXPECT_EQ(driver->status() & status::needs_reset, 0);
    for (Gpa at = pages; at < pages + 64 * page_size; at += page_size) {
      EXPECT_TRUE(machine.memory->write_object(at, uint64_t{1}));
    }
  }
  [[nodiscard]] uint64_t word(Gpa at) const {
    uint64_t value = ~uint64_t{0};
    EXPECT_TRUE(machine.memory->read_object(at, value));
    return value;
  }
  void inflate(const std::vector<uint32_t>& numbers, bool indirect = false) {
    for (size_t i = 0; i < numbers.size(); ++i) {
      EXPECT_TRUE(machine.memory->write_object(data + 4 * i, numbers[i]));
    }
    queue(Balloon::inflate_queue).add({{data, static_cast<uint32_t>(4 * numbers.size())}}, indirect);
    driver->kick(Balloon::inflate_queue);
    EXPECT_TRUE(queue(Balloon::inflate_queue).take_used());
  }
  DriverQueue& queue(unsigned index) { return driver->queues[index]; }

  TestMachine machine;
  Balloon& balloon;
  std::optional<TestDriver> driver;
};

class BalloonEachRing : public EachRing {};

TEST_P(BalloonEachRing, PagesThatAreGivenUpHaveNoMemory) {
  BalloonFixture f(GetParam());
  constexpr uint32_t first = pages / page_size;
  f.inflate({first + 3, first + 2, first + 1, first + 9, first + 9}, GetParam().indirect);
  for (const uint64_t page : {1, 2, 3, 9}) EXPECT_EQ(f.word(pages + page * page_size), 0u) << page;
  for (const uint64_t page : {0, 4, 8, 10}) EXPECT_EQ(f.word(pages + page * page_size), 1u) << page;
  // They come back by being used.
  ASSERT_TRUE(f.machine.memory->write_object(data, first + 1));
  f.queue(Balloon::deflate_queue).add({{data, 4}}, GetParam().indirect);
  f.driver->kick(Balloon::deflate_queue);
  EXPECT_TRUE(f.queue(Balloon::deflate_queue).take_used());
  ASSERT_TRUE(f.machine.memory->write_object(pages + page_size, uint64_t{7}));
  EXPECT_EQ(f.word(pages + page_size), 7u);
}
INSTANTIATE_TEST_SUITE_P(Rings, BalloonEachRing, testing::ValuesIn(ring_choices), ring_name);

TEST(Balloon, PagesThatAreNoneDoNothing) {
  BalloonFixture f;
  constexpr uint32_t first = pages / page_size;
  const auto end = static_cast<uint32_t>(f.machine.memory->size() / page_size);
  f.inflate({~0u, end, end + 1, 0xc0000, first + 20, ~0u - 1});
  EXPECT_EQ(f.word(pages + 20 * page_size), 0u);
  EXPECT_EQ(f.driver->status() & status::needs_reset, 0);
  // Half a number.
  f.queue(Balloon::inflate_queue).add({{data, 3}});
  f.driver->kick(Balloon::inflate_queue);
  EXPECT_TRUE(f.queue(Balloon::inflate_queue).take_used());
  // More than one chain may have.
  std::vector<uint32_t> many(Balloon::max_pages + 1, ~0u);
  many.back() = first + 21;
  f.inflate(many);
  EXPECT_EQ(f.word(pages + 21 * page_size), 1u);
}

TEST(Balloon, TheHostsWishAndTheGuestsAnswer) {
  BalloonFixture f;
  const uint64_t size = f.machine.memory->size();
  EXPECT_EQ(f.balloon.target(), size);
  f.balloon.set_target(size - 100 * page_size);
  EXPECT_EQ(f.driver->device_config(0, 4), 100u);
  EXPECT_EQ(f.balloon.target(), size - 100 * page_size);
  EXPECT_EQ(f.balloon.memory_bytes(), size);
  f.driver->write(VirtioPci::device_offset + 4, 4, 60);
  EXPECT_EQ(f.driver->device_config(4, 4), 60u);
  EXPECT_EQ(f.balloon.memory_bytes(), size - 60 * page_size);
  f.driver->write(VirtioPci::device_offset, 4, 5);  // not the driver's to write
  EXPECT_EQ(f.driver->device_config(0, 4), 100u);
  f.driver->write(VirtioPci::device_offset + 4, 4, ~0u);
  EXPECT_EQ(f.balloon.memory_bytes(), 0u);
  f.balloon.set_target(2 * size);
  EXPECT_EQ(f.driver->device_config(0, 4), 0u);
  // The wish outlives the driver, its answer does not.
  f.balloon.set_target(size / 2);
  f.driver->set_status(0);
  EXPECT_EQ(f.balloon.target(), size / 2);
  EXPECT_EQ(f.balloon.memory_bytes(), size);
}

TEST(Balloon, FreePagesThatAreReportedHaveNoMemory) {
  for (const unsigned index : {3u, 2u}) {
    BalloonFixture f(ring_choices[0],
                     index == 3 ? Balloon::statistics_queue | Balloon::page_reporting : Balloon::page_reporting);
    f.queue(index).add({{pages, 4 * page_size, true}, {pages + 8 * page_size + 8, 3 * page_size, true}});
    f.driver->kick(index);
    EXPECT_TRUE(f.queue(index).take_used());
    for (const uint64_t page : {0, 3, 9, 10}) EXPECT_EQ(f.word(pages + page * page_size), 0u) << page;
    for (const uint64_t page : {4, 8, 11}) EXPECT_EQ(f.word(pages + page * page_size), 1u) << page;
    EXPECT_EQ(f.balloon.reported_bytes(), 6 * page_size);
    // What is no memory, or less than a page.
    f.queue(index).add({{~uint64_t{0} - 100, 200, true}, {pages + 32 * page_size + 1, page_size, true}});
    f.driver->kick(index);
  }
}

TEST(Balloon, WithoutTheFeatureNothingIsTakenForAReport) {
  BalloonFixture f(ring_choices[0], 0);
  f.queue(2).add({{pages, page_size, true}});
  f.driver->kick(2);
  EXPECT_EQ(f.word(pages), 1u);
}

TEST(Balloon, StatisticsComeWhenTheyAreAskedFor) {
  BalloonFixture f;
  constexpr unsigned index = Balloon::statistics_index;
  const auto say = [&](uint64_t free) {
    const std::pair<uint16_t, uint64_t> statistics[]{{0, 1}, {4, free}, {5, 1000}, {6, free + 1}, {999, 7}};
    for (size_t i = 0; i < std::size(statistics); ++i) {
      ASSERT_TRUE(f.machine.memory->write_object(data + 10 * i, statistics[i].first));
      ASSERT_TRUE(f.machine.memory->write_object(data + 10 * i + 2, statistics[i].second));
    }
    f.queue(index).add({{data, 10 * std::size(statistics)}});
    f.driver->kick(index);
  };
  f.balloon.refresh_statistics();  // the driver has said nothing yet
  say(300);
  EXPECT_EQ(f.balloon.statistics().free, 300u);
  EXPECT_EQ(f.balloon.statistics().total, 1000u);
  EXPECT_EQ(f.balloon.statistics().available, 301u);
  EXPECT_FALSE(f.queue(index).take_used());
  f.balloon.refresh_statistics();
  EXPECT_TRUE(f.queue(index).take_used());
  f.balloon.refresh_statistics();
  EXPECT_FALSE(f.queue(index).take_used());
  say(200);
  EXPECT_EQ(f.balloon.statistics().free, 200u);
  say(100);  // a second buffer: the first goes back
  EXPECT_TRUE(f.queue(index).take_used());
  f.driver->set_status(0);
  EXPECT_EQ(f.balloon.statistics().total, 0u);
  f.balloon.refresh_statistics();
}

TEST(Balloon, SavedAndRestored) {
  BalloonFixture f;
  f.balloon.set_target(f.machine.memory->size() / 2);
  f.driver->write(VirtioPci::device_offset + 4, 4, 60);
  fields::Buffer saved;
  f.balloon.save(saved);
  BalloonFixture other;
  ASSERT_TRUE(other.balloon.restore(saved));
  EXPECT_EQ(other.balloon.target(), f.balloon.target());
  EXPECT_EQ(other.driver->device_config(4, 4), 60u);
  saved.pop_back();
  EXPECT_FALSE(other.balloon.restore(saved));
}

}  // namespace
}  // namespace caisson::virtio
