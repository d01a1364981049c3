// Keyboard and tablet as Linux's virtio_input driver sees them.
#include "devices/virtio/input.h"

#include <gtest/gtest.h>

#include <string>

#include "devices/virtio/test_machine.h"

namespace caisson::virtio {
namespace {

constexpr unsigned slot = 1;
constexpr Gpa data = 0x50'0000;

class InputFixture {
 public:
  explicit InputFixture(Input::Kind kind, RingChoice choice = ring_choices[0])
      : device(add_input(machine.bridge, machine.services, kind)), indirect(choice.indirect) {
    driver.emplace(machine, slot);
    driver->enable_msix();
    EXPECT_FALSE(device.driven());
    EXPECT_FALSE(device.send({}));
    driver->start(choice.features, 2);
    EXPECT_EQ(driver->status() & status::needs_reset, 0);
    EXPECT_TRUE(device.driven());
  }
  std::string ask(uint8_t select, uint8_t subselect) {
    driver->write(VirtioPci::device_offset, 1, select);
    driver->write(VirtioPci::device_offset + 1, 1, subselect);
    std::string out;
    const auto size = driver->read(VirtioPci::device_offset + 2, 1);
    for (unsigned i = 0; i < size; ++i) {
      out += static_cast<char>(driver->read(VirtioPci::device_offset + 8 + i, 1));
    }
    return out;
  }
  DriverQueue& events() { return driver->queues[Input::event_queue]; }
  void add_buffers(unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      events().add({{data + 8 * (next++ % 32), 8, true}}, indirect);
    }
    driver->kick(Input::event_queue);
  }
  std::vector<InputEvent> take() {
    std::vector<InputEvent> out;
    while (events().take_used()) {
      const Gpa at = data + 8 * (taken++ % 32);
      out.push_back({events().get<uint16_t>(at), events().get<uint16_t>(at + 2), events().get<uint32_t>(at + 4)});
    }
    return out;
  }

  TestMachine machine;
  Input& device;
  std::optional<TestDriver> driver;
  const bool indirect;
  unsigned next = 0, taken = 0;
};

bool has(const std::string& bits, unsigned bit) {
  return bit / 8 < bits.size() && (static_cast<uint8_t>(bits[bit / 8]) >> bit % 8 & 1) != 0;
}

TEST(InputTest, AKeyboardSaysWhatItHas) {
  InputFixture f(Input::Kind::Keyboard);
  EXPECT_EQ(f.ask(1, 0), "Caisson Virtio Keyboard");
  EXPECT_EQ(f.ask(0, 0), "");
  EXPECT_EQ(f.ask(3, 0).size(), 8u);
  const std::string keys = f.ask(0x11, input::ev_key);
  for (const unsigned key : {1u, 30u, 86u, 88u, 96u, 103u, 125u, 142u}) EXPECT_TRUE(has(keys, key)) << key;
  EXPECT_FALSE(has(keys, 0));
  EXPECT_FALSE(has(keys, input::btn_left));
  EXPECT_EQ(f.ask(0x11, input::ev_led), "\x07");
  EXPECT_EQ(f.ask(0x11, input::ev_rep).size(), 1u);
  EXPECT_EQ(f.ask(0x11, input::ev_abs), "");
  EXPECT_EQ(f.ask(0x12, 0), "");
}

TEST(InputTest, ATabletSaysWhereItsEdgesAre) {
  InputFixture f(Input::Kind::Tablet);
  EXPECT_EQ(f.ask(1, 0), "Caisson Virtio Tablet");
  EXPECT_EQ(f.ask(0x11, input::ev_abs), "\x03");
  EXPECT_TRUE(has(f.ask(0x11, input::ev_rel), input::rel_wheel));
  EXPECT_TRUE(has(f.ask(0x11, input::ev_key), input::btn_extra));
  const std::string info = f.ask(0x12, 1);
  ASSERT_EQ(info.size(), 20u);
  EXPECT_EQ(info.substr(0, 8), std::string("\0\0\0\0\xff\x7f\0\0", 8));
  EXPECT_EQ(f.ask(0x12, 2), "");
}

class InputEachRing : public EachRing {};

TEST_P(InputEachRing, EventsComeInOrderAndWaitForBuffers) {
  InputFixture f(Input::Kind::Tablet, GetParam());
  for (unsigned round = 0; round < 20; ++round) {
    const std::array<InputEvent, 2> move{InputEvent{input::ev_abs, 0, round}, InputEvent{input::ev_abs, 1, 7}};
    EXPECT_TRUE(f.device.send(move));
    EXPECT_TRUE(f.take().empty());
    f.add_buffers(2);
    EXPECT_EQ(f.take(), (std::vector<InputEvent>{move[0], move[1]}));
    f.add_buffers(3);
    EXPECT_EQ(f.take(), (std::vector<InputEvent>{{input::ev_syn, 0, 0}}));
    EXPECT_TRUE(f.device.send(std::span(move).first(1)));
    EXPECT_EQ(f.take(), (std::vector<InputEvent>{move[0], {input::ev_syn, 0, 0}}));
  }
}

INSTANTIATE_TEST_SUITE_P(, InputEachRing, testing::ValuesIn(ring_choices), ring_name);

TEST(InputTest, WhatWaitsIsBoundedAndGoesWithAReset) {
  InputFixture f(Input::Kind::Keyboard);
  const std::array<InputEvent, 1> key{InputEvent{input::ev_key, 30, 1}};
  unsigned taken = 0;
  while (f.device.send(key)) ++taken;
  EXPECT_EQ(taken, Input::most_waiting / 2);
  f.driver->start(0, 2);
  f.next = f.taken = 0;
  f.add_buffers(4);
  EXPECT_TRUE(f.take().empty());
  EXPECT_TRUE(f.device.send(key));
  EXPECT_EQ(f.take().size(), 2u);
}

TEST(InputTest, LightsAreTakenAndABufferTooSmallFails) {
  InputFixture f(Input::Kind::Keyboard);
  auto& status = f.driver->queues[Input::status_queue];
  status.add({{data + 0x1000, 8}});
  f.driver->kick(Input::status_queue);
  EXPECT_TRUE(status.take_used());
  f.events().add({{data, 7, true}});
  f.driver->kick(Input::event_queue);
  EXPECT_TRUE(f.device.send(std::array{InputEvent{input::ev_key, 30, 1}}));
  EXPECT_NE(f.driver->status() & status::needs_reset, 0);
  EXPECT_FALSE(f.device.driven());
}

TEST(InputTest, KeysHaveLinuxNumbers) {
  EXPECT_EQ(input::key_of(0x1e, false), 30);
  EXPECT_EQ(input::key_of(0x48, true), 103);
  EXPECT_EQ(input::key_of(0x48, false), 72);
  EXPECT_EQ(input::key_of(0x73, false), 89);
  EXPECT_EQ(input::key_of(0x02, true), 0);
}

}  // namespace
}  // namespace caisson::virtio
