// The typist against a keyboard controller that a test reads as a guest would.
#include "machine/screen.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "bus/fake_clock.h"
#include "devices/device_test_support.h"

namespace caisson::machine {
namespace {

class TypistTest : public testing::Test {
 protected:
  TypistTest() { command_byte(0x41); }  // interrupt and translation to set 1

  void command_byte(uint8_t value) {
    keyboard_.write(1, 0, 1, 0x60);
    keyboard_.write(0, 0, 1, value);
  }
  void read_all() {
    while ((keyboard_.read(1, 0, 1) & 1) != 0) codes_.push_back(static_cast<uint8_t>(keyboard_.read(0, 0, 1)));
  }
  void type(std::string_view text) {
    typist_.type(text, [this](const std::string& error) { answers_.push_back(error); });
  }
  // A guest that reads every millisecond.
  void run(unsigned milliseconds) {
    for (unsigned i = 0; i < milliseconds; ++i) {
      read_all();
      clock_.advance(1'000'000);
    }
    read_all();
  }

  FakeClock clock_;
  test_support::RecordingLine line_, mouse_line_;
  test_support::RecordingPower power_;
  KeyboardController keyboard_{line_, mouse_line_, power_, true};
  Inputs inputs_{clock_, keyboard_, nullptr, nullptr};
  Typist typist_{clock_, inputs_};
  std::vector<uint8_t> codes_;
  std::vector<std::string> answers_;
};

TEST_F(TypistTest, PressesAndReleasesInOrderAndAnswersOnce) {
  type("a<up>");
  EXPECT_TRUE(answers_.empty());
  run(1000);
  EXPECT_EQ(codes_, (std::vector<uint8_t>{0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8}));
  EXPECT_EQ(answers_, std::vector<std::string>{""});
}

TEST_F(TypistTest, TypesOnTheKeyboardThatTheGuestBelievesToHave) {
  Typist german(clock_, inputs_, control::KeyboardLayout::De);
  german.type("z@", [this](const std::string& error) { answers_.push_back(error); });
  run(1000);
  EXPECT_EQ(codes_, (std::vector<uint8_t>{0x15, 0x95, 0xe0, 0x38, 0x10, 0x90, 0xe0, 0xb8}));
  german.type("\u4e2d", [this](const std::string& error) { answers_.push_back(error); });
  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_EQ(answers_[0], "");
  EXPECT_NE(answers_[1].find("--keyboard-layout"), std::string::npos) << answers_[1];
}

TEST_F(TypistTest, FinishesOneTextBeforeTheNext) {
  type("a");
  type("b");
  run(1000);
  EXPECT_EQ(codes_, (std::vector<uint8_t>{0x1e, 0x9e, 0x30, 0xb0}));
  EXPECT_EQ(answers_, (std::vector<std::string>{"", ""}));
}

TEST_F(TypistTest, LosesNothingWhileTheGuestIsSlow) {
  type(std::string(100, 'a'));
  clock_.advance(3'000'000'000);  // nobody reads: the keyboard is full
  EXPECT_TRUE(answers_.empty());
  run(10'000);
  ASSERT_EQ(codes_.size(), 200u);
  for (size_t i = 0; i < codes_.size(); ++i) EXPECT_EQ(codes_[i], i % 2 == 0 ? 0x1e : 0x9e) << i;
  EXPECT_EQ(answers_, std::vector<std::string>{""});
}

TEST_F(TypistTest, GivesUpOnAGuestThatNeverReadsAndThenTypesAgain) {
  type(std::string(100, 'a'));
  clock_.advance(60'000'000'000);
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_NE(answers_[0], "");
  read_all();
  codes_.clear();
  type("b");
  run(1000);
  EXPECT_EQ(codes_, (std::vector<uint8_t>{0x30, 0xb0}));
  EXPECT_EQ(answers_.back(), "");
}

TEST_F(TypistTest, RefusesWhatIsNoKeyAndTooMuchAtOnce) {
  type("<nokey>");
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_NE(answers_[0], "");
  type(std::string(32769, 'a'));  // two events each, 65536 may wait
  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_NE(answers_[1], "");
  run(100);
  EXPECT_TRUE(codes_.empty());
}

TEST_F(TypistTest, PointsAMouseFromTheCorner) {
  const auto point = [&](control::Point request) {
    typist_.point(request, 640, 480, [this](const std::string& error) { answers_.push_back(error); });
  };
  point({.x = 640, .y = 0});
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_NE(answers_[0].find("640 x 480"), std::string::npos);
  command_byte(0x03);
  keyboard_.write(1, 0, 1, 0xd4);
  keyboard_.write(0, 0, 1, 0xf4);
  read_all();
  codes_.clear();
  point({.x = 100, .y = 50, .action = control::PointAction::DoubleClick, .button = control::PointButton::Right});
  run(3000);
  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_EQ(answers_[1], "");
  int x = 0, y = 0, presses = 0;
  uint8_t buttons = 0;
  ASSERT_EQ(codes_.size() % 3, 0u);
  for (size_t i = 0; i < codes_.size(); i += 3) {
    const uint8_t head = codes_[i];
    x += codes_[i + 1] - ((head & 0x10) != 0 ? 256 : 0);
    y -= codes_[i + 2] - ((head & 0x20) != 0 ? 256 : 0);
    x = std::max(x, 0);
    y = std::max(y, 0);
    if ((head & 7) == 2 && buttons == 0) ++presses;
    buttons = head & 7;
  }
  EXPECT_EQ(x, 100);
  EXPECT_EQ(y, 50);
  EXPECT_EQ(presses, 2);
  EXPECT_EQ(buttons, 0);
}

TEST_F(TypistTest, AGuestWithoutAMouseDriverIsNamed) {
  typist_.point({.x = 1, .y = 1}, 640, 480, [this](const std::string& error) { answers_.push_back(error); });
  clock_.advance(60'000'000'000);
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_NE(answers_[0].find("driver"), std::string::npos);
}

TEST_F(TypistTest, WhoCannotWaitLosesNoButtonAndMovesAreJoined) {
  command_byte(0x03);
  keyboard_.write(1, 0, 1, 0xd4);
  keyboard_.write(0, 0, 1, 0xf4);
  read_all();
  codes_.clear();
  for (unsigned i = 0; i < 100; ++i) {
    inputs_.point_soon({10 + i, 10, 640, 480, static_cast<uint8_t>(i % 2), 0});
    inputs_.point_soon({10 + i, 10, 640, 480, static_cast<uint8_t>(i % 2), 0});
  }
  run(10'000);
  unsigned presses = 0;
  for (size_t i = 0; i + 2 < codes_.size(); i += 3) {
    if ((codes_[i] & 1) != 0 && (i < 3 || (codes_[i - 3] & 1) == 0)) ++presses;
  }
  EXPECT_EQ(presses, 50u);
}

}  // namespace
}  // namespace caisson::machine
