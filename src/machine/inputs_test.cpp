// Which device gets keys and the pointer: virtio's from when a driver runs them, PS/2's before and after.
#include "machine/inputs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "bus/fake_clock.h"
#include "devices/device_test_support.h"
#include "devices/virtio/test_machine.h"

namespace caisson::machine {
namespace {

using virtio::InputEvent;
namespace input = virtio::input;

constexpr Gpa data = 0x50'0000;

class InputsTest : public testing::Test {
 protected:
  InputsTest() {
    ps2_.write(1, 0, 1, 0x60);
    ps2_.write(0, 0, 1, 0x43);  // interrupts, translation to set 1
    ps2_.write(1, 0, 1, 0xd4);
    ps2_.write(0, 0, 1, 0xf4);
    (void)heard();
  }
  std::vector<int> heard() {
    std::vector<int> bytes;
    while ((ps2_.read(1, 0, 1) & 1) != 0) bytes.push_back(static_cast<int>(ps2_.read(0, 0, 1)));
    return bytes;
  }
  // What the driver in the slot got.
  std::vector<InputEvent> take(virtio::TestDriver& driver) {
    auto& queue = driver.queues[virtio::Input::event_queue];
    std::vector<InputEvent> events;
    for (;;) {
      if (!offered_) {
        queue.add({{data, 8, true}});
        driver.kick(virtio::Input::event_queue);
      }
      offered_ = !queue.take_used();
      if (offered_) return events;
      if (queue.get<uint16_t>(data) != input::ev_syn) {
        events.push_back({queue.get<uint16_t>(data), queue.get<uint16_t>(data + 2), queue.get<uint32_t>(data + 4)});
      }
    }
  }

  bool offered_ = false;  // the driver's one buffer is with the device
  FakeClock clock_;
  test_support::RecordingLine line_, mouse_line_;
  test_support::RecordingPower power_;
  KeyboardController ps2_{line_, mouse_line_, power_, true};
  virtio::TestMachine machine_;
  virtio::Input& keyboard_ = virtio::add_input(machine_.bridge, machine_.services, virtio::Input::Kind::Keyboard);
  virtio::Input& tablet_ = virtio::add_input(machine_.bridge, machine_.services, virtio::Input::Kind::Tablet);
  Inputs inputs_{clock_, ps2_, &keyboard_, &tablet_};
};

TEST_F(InputsTest, AKeyComesUpWhereItWentDown) {
  EXPECT_TRUE(inputs_.key({0x1e}, true));
  virtio::TestDriver driver(machine_, 1);
  driver.start(0, 2);
  EXPECT_TRUE(inputs_.key({0x1e}, false));
  EXPECT_EQ(heard(), (std::vector<int>{0x1e, 0x9e}));
  EXPECT_TRUE(inputs_.key({0x48, true}, true));
  EXPECT_TRUE(heard().empty());
  EXPECT_EQ(take(driver), (std::vector<InputEvent>{{input::ev_key, 103, 1}}));
  driver.set_status(0);
  EXPECT_TRUE(inputs_.key({0x48, true}, false)) << "nobody knows of it any more";
  EXPECT_TRUE(heard().empty());
  EXPECT_TRUE(inputs_.key({0x1e}, true));
  EXPECT_EQ(heard(), std::vector<int>{0x1e});
}

TEST_F(InputsTest, ATabletGetsPlacesAMouseDifferences) {
  EXPECT_TRUE(inputs_.point({100, 100, 800, 600, 0, 0}));
  EXPECT_TRUE(heard().empty()) << "from where is not known yet";
  EXPECT_TRUE(inputs_.point({110, 95, 800, 600, 0, 0}));
  EXPECT_EQ(heard(), (std::vector<int>{0x08, 10, 5}));
  virtio::TestDriver driver(machine_, 2);
  driver.start(0, 2);
  EXPECT_TRUE(inputs_.home());
  EXPECT_TRUE(inputs_.point({799, 0, 800, 600, Ps2Mouse::middle, -1}));
  EXPECT_TRUE(inputs_.point({0, 599, 800, 600, 0, 0}));
  EXPECT_EQ(take(driver), (std::vector<InputEvent>{{input::ev_abs, input::abs_x, 32767},
                                                   {input::ev_abs, input::abs_y, 0},
                                                   {input::ev_key, input::btn_middle, 1},
                                                   {input::ev_rel, input::rel_wheel, 1},
                                                   {input::ev_abs, input::abs_x, 0},
                                                   {input::ev_abs, input::abs_y, 32767},
                                                   {input::ev_key, input::btn_middle, 0}}));
  EXPECT_TRUE(heard().empty());
}

TEST_F(InputsTest, AUsbTabletGetsPlacesOnceItIsConfigured) {
  usb::Tablet tablet;
  Inputs inputs(clock_, ps2_, &keyboard_, nullptr, &tablet);
  EXPECT_TRUE(inputs.point({100, 100, 800, 600, 0, 0}));
  EXPECT_TRUE(inputs.point({110, 95, 800, 600, 0, 0}));
  EXPECT_EQ(heard(), (std::vector<int>{0x08, 10, 5}));
  ASSERT_TRUE(tablet.control_out({.request = static_cast<uint8_t>(usb::Request::set_configuration), .value = 1}, {}));
  EXPECT_TRUE(inputs.home());
  EXPECT_TRUE(inputs.point({799, 0, 800, 600, Ps2Mouse::middle, -1}));
  EXPECT_TRUE(heard().empty());
  std::array<uint8_t, usb::Tablet::report_size> report{};
  EXPECT_EQ(tablet.in(1, report).count, report.size());
  EXPECT_EQ(report, (std::array<uint8_t, usb::Tablet::report_size>{4, 0xff, 0x7f, 0, 0, 1}));
  for (unsigned i = 0; i < usb::Tablet::most_waiting; ++i) EXPECT_TRUE(inputs.point({i, 0, 800, 600, 0, 0}));
  EXPECT_FALSE(inputs.point({0, 0, 800, 600, 0, 0})) << "later";
}

TEST_F(InputsTest, WhatATabletDoesNotTakeComesLater) {
  virtio::TestDriver driver(machine_, 2);
  driver.start(0, 2);
  for (uint32_t i = 0; i < 100; ++i) {
    inputs_.point_soon({i, 0, 101, 101, static_cast<uint8_t>(i >= 50 ? Ps2Mouse::left : 0), 0});
  }
  std::vector<InputEvent> all;
  for (unsigned round = 0; round < 20; ++round) {
    const auto some = take(driver);
    all.insert(all.end(), some.begin(), some.end());
    clock_.advance(10'000'000);
  }
  ASSERT_GE(all.size(), 3u);
  EXPECT_EQ(std::ranges::count(all, InputEvent{input::ev_key, input::btn_left, 1}), 1);
  EXPECT_EQ(all[all.size() - 3], (InputEvent{input::ev_abs, input::abs_x, 99 * 32767 / 100})) << "the last place";
}

}  // namespace
}  // namespace caisson::machine
