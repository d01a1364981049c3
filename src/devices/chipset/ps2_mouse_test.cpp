// The mouse behind the keyboard controller, spoken to as drivers do.
#include <gtest/gtest.h>

#include <vector>

#include "devices/chipset/keyboard_controller.h"
#include "devices/device_test_support.h"

namespace caisson {
namespace {

using Bytes = std::vector<int>;

class Ps2MouseTest : public testing::Test {
 protected:
  Ps2MouseTest() { mode(0x03); }  // interrupts of both ports, both on, no translation

  void mode(uint8_t value) {
    controller_.write(1, 0, 1, 0x60);
    controller_.write(0, 0, 1, value);
  }
  // Everything the mouse says until it is silent.
  Bytes heard() {
    Bytes bytes;
    while ((controller_.read(1, 0, 1) & 0x21) == 0x21) bytes.push_back(static_cast<int>(controller_.read(0, 0, 1)));
    return bytes;
  }
  Bytes say(uint8_t value) {
    controller_.write(1, 0, 1, 0xd4);
    controller_.write(0, 0, 1, value);
    return heard();
  }
  void knock(uint8_t first, uint8_t second, uint8_t third) {
    for (const uint8_t rate : {first, second, third}) {
      EXPECT_EQ(say(0xf3), Bytes{0xfa});
      EXPECT_EQ(say(rate), Bytes{0xfa});
    }
  }

  test_support::RecordingLine keyboard_line_, mouse_line_;
  test_support::RecordingPower power_;
  KeyboardController controller_{keyboard_line_, mouse_line_, power_, true};
};

TEST_F(Ps2MouseTest, ThePortTellsThatItIsThere) {
  controller_.write(1, 0, 1, 0xa9);
  EXPECT_EQ(controller_.read(0, 0, 1), 0u);
  controller_.write(1, 0, 1, 0xd3);  // Linux: the loop comes back with the flag, and by the mouse's interrupt
  controller_.write(0, 0, 1, 0x5a);
  EXPECT_EQ(controller_.read(1, 0, 1) & 0x21, 0x21u);
  EXPECT_TRUE(mouse_line_.level());
  EXPECT_FALSE(keyboard_line_.level());
  EXPECT_EQ(controller_.read(0, 0, 1), 0x5au);
  EXPECT_FALSE(mouse_line_.level());
  controller_.write(1, 0, 1, 0xa7);
  controller_.write(1, 0, 1, 0x20);
  EXPECT_EQ(controller_.read(0, 0, 1) & 0x20, 0x20u);
  controller_.write(1, 0, 1, 0xa8);
  controller_.write(1, 0, 1, 0x20);
  EXPECT_EQ(controller_.read(0, 0, 1) & 0x20, 0u);
}

TEST_F(Ps2MouseTest, ResetIdentityStatusAndDefaults) {
  EXPECT_EQ(say(0xff), (Bytes{0xfa, 0xaa, 0x00}));
  EXPECT_EQ(say(0xf2), (Bytes{0xfa, 0x00}));
  EXPECT_EQ(say(0xe9), (Bytes{0xfa, 0x00, 0x02, 100}));
  EXPECT_EQ(say(0xe8), Bytes{0xfa});
  EXPECT_EQ(say(3), Bytes{0xfa});
  EXPECT_EQ(say(0xe7), Bytes{0xfa});
  EXPECT_EQ(say(0xf0), Bytes{0xfa});
  EXPECT_EQ(say(0xf4), Bytes{0xfa});
  EXPECT_EQ(say(0xe9), (Bytes{0xfa, 0x70, 3, 100}));
  EXPECT_EQ(say(0xf6), Bytes{0xfa});
  EXPECT_EQ(say(0xe9), (Bytes{0xfa, 0x00, 0x02, 100}));
}

TEST_F(Ps2MouseTest, StreamsMovesAndButtonsOnceEnabled) {
  EXPECT_TRUE(controller_.move(5, 5, 0, 0));
  EXPECT_TRUE(heard().empty());
  EXPECT_FALSE(controller_.mouse_wanted());
  say(0xf4);
  EXPECT_TRUE(controller_.mouse_wanted());
  EXPECT_TRUE(heard().empty()) << "what was before is forgotten";
  EXPECT_TRUE(controller_.move(10, -3, 0, 0));
  EXPECT_TRUE(mouse_line_.level());
  EXPECT_EQ(heard(), (Bytes{0x28, 10, 0xfd}));
  EXPECT_TRUE(controller_.move(0, 0, 0, Ps2Mouse::left));
  EXPECT_TRUE(controller_.move(0, 0, 0, 0));
  EXPECT_EQ(heard(), (Bytes{0x09, 0, 0, 0x08, 0, 0}));
  EXPECT_TRUE(controller_.move(-600, 0, 0, 0));
  EXPECT_EQ(heard(), (Bytes{0x18, 0x01, 0, 0x18, 0x01, 0, 0x18, 0xa6, 0}));
  say(0xf5);
  EXPECT_TRUE(controller_.move(1, 1, 0, 0));
  EXPECT_TRUE(heard().empty());
}

TEST_F(Ps2MouseTest, MovesBeforeAButtonAreToldBeforeIt) {
  say(0xf4);
  EXPECT_TRUE(controller_.move(300, 0, 0, Ps2Mouse::right));
  EXPECT_EQ(heard(), (Bytes{0x08, 255, 0, 0x08, 45, 0, 0x0a, 0, 0}));
}

TEST_F(Ps2MouseTest, WheelAndFiveButtonsByKnocking) {
  knock(200, 100, 80);
  EXPECT_EQ(say(0xf2), (Bytes{0xfa, 3}));
  say(0xf4);
  EXPECT_TRUE(controller_.move(0, 0, -1, 0));
  EXPECT_EQ(heard(), (Bytes{0x08, 0, 0, 0xff}));
  knock(200, 200, 80);
  EXPECT_EQ(say(0xf2), (Bytes{0xfa, 4}));
  EXPECT_TRUE(controller_.move(0, 0, 1, Ps2Mouse::fourth | Ps2Mouse::left));
  EXPECT_EQ(heard(), (Bytes{0x09, 0, 0, 0x11}));
  EXPECT_EQ(say(0xff), (Bytes{0xfa, 0xaa, 0x00})) << "a reset makes it a plain one";
}

TEST_F(Ps2MouseTest, RemoteAndWrapMode) {
  say(0xf0);
  say(0xf4);
  EXPECT_TRUE(controller_.move(1, 2, 0, Ps2Mouse::middle));
  EXPECT_TRUE(heard().empty());
  EXPECT_EQ(say(0xeb), (Bytes{0xfa, 0x0c, 1, 2}));
  EXPECT_EQ(say(0xee), Bytes{0xfa});
  EXPECT_EQ(say(0xf2), Bytes{0xf2});
  EXPECT_EQ(say(0xe6), Bytes{0xe6});
  EXPECT_EQ(say(0xec), Bytes{0xfa});
  EXPECT_EQ(say(0xe6), Bytes{0xfa});
}

TEST_F(Ps2MouseTest, ScalingResendAndRefusals) {
  say(0xe7);
  say(0xf4);
  EXPECT_TRUE(controller_.move(5, -20, 0, 0));
  EXPECT_EQ(heard(), (Bytes{0x28, 9, 0xd8}));
  EXPECT_EQ(say(0xfe), Bytes{0xd8});
  EXPECT_EQ(say(0x12), Bytes{0xfe});
  EXPECT_EQ(say(0x12), Bytes{0xfc});
  say(0xf3);
  EXPECT_EQ(say(7), Bytes{0xfe});
  EXPECT_EQ(say(80), Bytes{0xfa}) << "the argument may come again";
  EXPECT_EQ(say(0xe9), (Bytes{0xfa, 0x30, 2, 80}));
}

TEST_F(Ps2MouseTest, AGuestThatDoesNotReadLosesNoButton) {
  say(0xf4);
  unsigned taken = 0;
  while (controller_.move(0, 0, 0, taken % 2 == 0 ? Ps2Mouse::left : 0)) ++taken;
  EXPECT_GT(taken, 4u);
  const Bytes bytes = heard();
  ASSERT_EQ(bytes.size(), 3 * taken);
  for (unsigned i = 0; i < taken; ++i) EXPECT_EQ(bytes[3 * i] & 1, i % 2 == 0 ? 1 : 0);
  EXPECT_TRUE(controller_.move(0, 0, 0, Ps2Mouse::right));
}

TEST_F(Ps2MouseTest, KeysGoBeforeReportsAndAClosedPortHoldsThemBack) {
  say(0xf4);
  mode(0x23);
  EXPECT_TRUE(controller_.move(1, 0, 0, 0));
  EXPECT_TRUE(heard().empty());
  EXPECT_TRUE(controller_.key({0x1e}, true));
  EXPECT_EQ(controller_.read(1, 0, 1) & 0x21, 0x01u);
  mode(0x03);
  EXPECT_EQ(controller_.read(0, 0, 1), 0x1cu);
  EXPECT_EQ(heard(), (Bytes{0x08, 1, 0}));
}

}  // namespace
}  // namespace caisson
