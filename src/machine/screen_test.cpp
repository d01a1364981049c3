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
  Typist typist_{clock_, keyboard_};
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

}  // namespace
}  // namespace caisson::machine
