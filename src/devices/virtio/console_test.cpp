// Console and entropy device.
#include "devices/virtio/console.h"

#include <gtest/gtest.h>

#include "devices/virtio/fake_backends.h"
#include "devices/virtio/test_machine.h"

namespace caisson::virtio {
namespace {

constexpr unsigned slot = 1;
constexpr Gpa data = 0x50'0000;

std::span<const uint8_t> bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

class ConsoleFixture {
 public:
  explicit ConsoleFixture(RingChoice choice = ring_choices[0])
      : console(add_console(machine.bridge, machine.services, terminal)), indirect(choice.indirect) {
    driver.emplace(machine, slot);
    driver->enable_msix();
    driver->start(choice.features | Console::size, 2);
    EXPECT_EQ(driver->status() & status::needs_reset, 0);
  }
  DriverQueue& rx() { return driver->queues[Console::receive_queue]; }
  DriverQueue& tx() { return driver->queues[Console::transmit_queue]; }

  FakeConsole terminal;
  TestMachine machine;
  Console& console;
  std::optional<TestDriver> driver;
  const bool indirect;
};

class ConsoleEachRing : public EachRing {};

TEST_P(ConsoleEachRing, OutputWithBackpressureLosesNothing) {
  ConsoleFixture f(GetParam());
  std::string all;
  for (unsigned round = 0; round < 30; ++round) {
    const std::string line = "line " + std::to_string(round) + ", long enough to be cut\n";
    f.tx().put_bytes(data, bytes(line));
    const auto length = static_cast<uint32_t>(line.size());
    f.tx().add({{data, 5}, {data + 5, length - 5}}, GetParam().indirect);
    f.terminal.room = 7;
    f.driver->kick(Console::transmit_queue);
    EXPECT_EQ(f.terminal.written, all + line.substr(0, 7));
    EXPECT_FALSE(f.tx().take_used());
    f.terminal.room = 3;
    f.terminal.writable();
    EXPECT_EQ(f.terminal.written, all + line.substr(0, 10));
    f.terminal.room = SIZE_MAX;
    f.terminal.writable();
    all += line;
    EXPECT_EQ(f.terminal.written, all);
    EXPECT_TRUE(f.tx().take_used());
  }
}

TEST_P(ConsoleEachRing, InputFillsBuffersAndWaitsForMore) {
  ConsoleFixture f(GetParam());
  for (unsigned round = 0; round < 30; ++round) {
    f.rx().add({{data, 2, true}, {data + 2, 2, true}}, GetParam().indirect);
    f.driver->kick(Console::receive_queue);
    const unsigned ready = f.terminal.ready;
    EXPECT_EQ(f.terminal.receiver(bytes("abcdef")), 4u);
    EXPECT_EQ(f.rx().take_used()->length, 4u);
    EXPECT_EQ(f.rx().get<uint32_t>(data), 0x6463'6261u);
    f.rx().add({{data, 4, true}, {data + 4, 1, true}}, GetParam().indirect);
    f.driver->kick(Console::receive_queue);
    EXPECT_EQ(f.terminal.ready, ready + 1);
    EXPECT_EQ(f.terminal.receiver(bytes("ef")), 2u);
    EXPECT_EQ(f.rx().take_used()->length, 2u);
  }
}

INSTANTIATE_TEST_SUITE_P(, ConsoleEachRing, testing::ValuesIn(ring_choices), ring_name);

TEST(Console, AHugeChainIsWrittenPieceByPiece) {
  ConsoleFixture f;
  f.tx().add({{0, 1 << 20}, {0, 1 << 20}});
  f.driver->kick(Console::transmit_queue);
  EXPECT_LT(f.terminal.written.size(), 1u << 20);
  EXPECT_GT(f.machine.run_posted(), 1u);
  EXPECT_EQ(f.terminal.written.size(), 2u << 20);
  EXPECT_TRUE(f.tx().take_used());
}

TEST(Console, AChainThatShrinksWhileItWaitsEnds) {
  ConsoleFixture f;
  f.tx().add({{data, 100}});
  f.terminal.room = 50;
  f.driver->kick(Console::transmit_queue);
  f.tx().put_descriptor(f.tx().descriptors, 0, data, 10, 0, 0);
  f.terminal.room = 50;
  f.terminal.writable();
  EXPECT_EQ(f.terminal.written.size(), 50u);
  EXPECT_TRUE(f.tx().take_used());
}

TEST(Console, AReceiveBufferWithoutRoomBreaksTheDevice) {
  ConsoleFixture f;
  f.rx().add({{data, 10}});
  EXPECT_EQ(f.terminal.receiver(bytes("x")), 1u);
  EXPECT_EQ(f.driver->status() & status::needs_reset, status::needs_reset);
  f.terminal.writable();
}

TEST(Console, RoundTripInTheMiddleOfAChain) {
  ConsoleFixture f;
  f.tx().put_bytes(data, bytes("0123456789"));
  f.tx().add({{data, 10}});
  f.terminal.room = 4;
  f.driver->kick(Console::transmit_queue);
  const fields::Buffer saved = test_support::saved(f.machine.device(slot));
  f.driver->set_status(0);
  f.terminal.room = SIZE_MAX;
  ASSERT_TRUE(f.machine.device(slot).restore(saved));
  EXPECT_EQ(f.terminal.written, "0123");
  f.machine.run_posted();
  EXPECT_EQ(f.terminal.written, "0123456789");
  EXPECT_TRUE(f.tx().take_used());
}

class RngEachRing : public EachRing {};

TEST_P(RngEachRing, FillsBuffersWithinBounds) {
  TestMachine machine;
  add_rng(machine.bridge, machine.services);
  TestDriver driver(machine, slot);
  driver.enable_msix();
  driver.start(GetParam().features, 1);
  DriverQueue& queue = driver.queues[0];
  queue.put_bytes(data, std::vector<uint8_t>(64));
  queue.add({{data, 30, true}, {data + 30, 34, true}}, GetParam().indirect);
  queue.add({{data + 0x1000, 1 << 20, true}}, GetParam().indirect);
  queue.add({{data, 10}}, GetParam().indirect);
  driver.kick(0);
  EXPECT_EQ(queue.take_used()->length, 64u);
  EXPECT_EQ(queue.take_used()->length, Rng::most);
  EXPECT_EQ(queue.take_used()->length, 0u);
  std::array<uint8_t, 64> random{};
  ASSERT_TRUE(machine.memory->read(data, random));
  EXPECT_NE(random, (std::array<uint8_t, 64>{}));
  EXPECT_EQ(machine.msi.messages.size(), 1u);
  EXPECT_EQ(machine.config(slot, pci::device_id, 2), 0x1044u);
}

INSTANTIATE_TEST_SUITE_P(, RngEachRing, testing::ValuesIn(ring_choices), ring_name);

}  // namespace
}  // namespace caisson::virtio
