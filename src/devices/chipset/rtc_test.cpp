#include "devices/chipset/rtc.h"

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "devices/device_test_support.h"

namespace caisson {
namespace {

constexpr uint64_t ms = 1'000'000;
constexpr uint64_t second = 1000 * ms;

class RtcTest : public ::testing::Test {
 protected:
  RtcTest() : rtc_(line_, clock_) {}
  uint8_t get(uint8_t index) {
    rtc_.write(0, 0, 1, index);
    return static_cast<uint8_t>(rtc_.read(0, 1, 1));
  }
  void put(uint8_t index, uint8_t value) {
    rtc_.write(0, 0, 1, index);
    rtc_.write(0, 1, 1, value);
  }
  void set_time(uint8_t century, uint8_t year, uint8_t month, uint8_t day, uint8_t hour, uint8_t minute, uint8_t sec) {
    put(0x0b, get(0x0b) | 0x80);
    put(0, sec);
    put(2, minute);
    put(4, hour);
    put(7, day);
    put(8, month);
    put(9, year);
    put(0x32, century);
    put(0x0b, get(0x0b) & 0x7f);
  }

  test_support::RecordingLine line_;
  FakeClock clock_;
  Rtc rtc_;
};

TEST_F(RtcTest, ShowsTheWallClock) {
  clock_.advance(13 * 3600 * second + 5 * 60 * second + 9 * second);
  EXPECT_EQ(get(0x32), 0x20);
  EXPECT_EQ(get(9), 0x23);
  EXPECT_EQ(get(8), 0x06);
  EXPECT_EQ(get(7), 0x10);
  EXPECT_EQ(get(6), 0x07) << "a Saturday";
  EXPECT_EQ(get(4), 0x13);
  EXPECT_EQ(get(2), 0x05);
  EXPECT_EQ(get(0), 0x09);
  EXPECT_EQ(get(0x0d), 0x80);
  put(0x0b, 0x06);
  EXPECT_EQ(get(4), 13) << "binary";
  put(0x0b, 0x00);
  EXPECT_EQ(get(4), 0x81) << "1 p.m.";
}

TEST_F(RtcTest, KeepsTheTimeThatIsSet) {
  set_time(0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x58);
  clock_.advance(2 * second);
  EXPECT_EQ(get(7), 0x29);
  EXPECT_EQ(get(4), 0x00);
  clock_.advance(86'400 * second);
  EXPECT_EQ(get(8), 0x03);
  EXPECT_EQ(get(7), 0x01);
}

TEST_F(RtcTest, SetFreezesTheRegisters) {
  put(0x0b, 0x82);
  const uint8_t before = get(0);
  clock_.advance(5 * second);
  EXPECT_EQ(get(0), before);
  put(0x0b, 0x02);
  EXPECT_EQ(get(0), before);
  clock_.advance(second);
  EXPECT_EQ(get(0), before + 1);
}

TEST_F(RtcTest, TheFirstUpdateComesHalfASecondAfterTheDividerStarts) {
  put(0x0a, 0x70);
  put(0, 0x30);
  put(0x0a, 0x26);
  clock_.advance(499 * ms);
  EXPECT_EQ(get(0), 0x30);
  clock_.advance(2 * ms);
  EXPECT_EQ(get(0), 0x31);
}

TEST_F(RtcTest, UpdateInProgressComesBeforeTheUpdate) {
  EXPECT_EQ(get(0x0a), 0x26);
  clock_.advance(second - 100'000);
  EXPECT_EQ(get(0x0a), 0xa6);
  clock_.advance(100'000);
  EXPECT_EQ(get(0x0a), 0x26);
}

TEST_F(RtcTest, UpdateEndedInterrupt) {
  put(0x0b, 0x12);
  (void)get(0x0c);
  clock_.advance(second - 1);
  EXPECT_FALSE(line_.level());
  clock_.advance(1);
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(get(0x0c) & 0x90, 0x90);
  EXPECT_FALSE(line_.level());
  EXPECT_EQ(get(0x0c), 0x00);
  clock_.advance(second);
  EXPECT_EQ(line_.rises(), 2u);
}

TEST_F(RtcTest, AlarmInterrupt) {
  put(1, 0x30);
  put(3, 0x02);
  put(5, 0xff);  // every hour
  put(0x0b, 0x22);
  (void)get(0x0c);
  clock_.advance(149 * second + 999 * ms);
  EXPECT_FALSE(line_.level());
  clock_.advance(ms);
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(get(0x0c) & 0xa0, 0xa0);
  clock_.advance(3600 * second);
  EXPECT_EQ(line_.rises(), 2u);
}

TEST_F(RtcTest, PeriodicInterrupt) {
  put(0x0b, 0x42);
  (void)get(0x0c);
  unsigned seen = 0;
  for (int i = 0; i < 1000; ++i) {
    clock_.advance(ms);
    if (line_.level()) {
      EXPECT_EQ(get(0x0c) & 0xc0, 0xc0);
      ++seen;
    }
  }
  EXPECT_NEAR(seen, 1000, 30) << "1024 Hz, looked at every millisecond";
  put(0x0a, 0x20);
  (void)get(0x0c);
  clock_.advance(second);
  EXPECT_FALSE(line_.level());
}

TEST_F(RtcTest, FlagsRiseWithoutInterrupts) {
  (void)get(0x0c);
  clock_.advance(2 * second);
  EXPECT_EQ(get(0x0c), 0x50);
  EXPECT_EQ(line_.rises(), 0u);
}

TEST_F(RtcTest, ResetKeepsTimeAndMemory) {
  set_time(0x20, 0x30, 0x01, 0x01, 0x00, 0x00, 0x00);
  put(0x40, 0x77);
  put(0x0b, 0x72);
  rtc_.reset();
  EXPECT_EQ(get(0x0b), 0x02);
  EXPECT_EQ(get(9), 0x30);
  EXPECT_EQ(get(0x40), 0x77);
}

TEST_F(RtcTest, NonsenseTimesAreBroughtIn) {
  put(0x0b, 0x86);
  for (const unsigned index : {0, 2, 4, 6, 7, 8, 9, 0x32}) put(static_cast<uint8_t>(index), 0xff);
  put(0x0b, 0x06);
  EXPECT_LT(get(0), 60);
  EXPECT_LT(get(4), 24);
  EXPECT_LE(get(8), 12);
  put(8, 0);
  put(7, 0);
  EXPECT_GE(get(8), 1);
}

TEST_F(RtcTest, MemorySize) {
  rtc_.set_memory_size(uint64_t{3} << 30, uint64_t{5} << 30);
  EXPECT_EQ(get(0x15) | get(0x16) << 8, 640);
  EXPECT_EQ(get(0x17) | get(0x18) << 8, 0xffff);
  EXPECT_EQ(get(0x34) | get(0x35) << 8, (3072 - 16) * 16);
  EXPECT_EQ(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 5 * 1024 * 16);
}

TEST_F(RtcTest, RoundTrip) {
  test_support::expect_round_trip<Rtc>(rtc_, [](Rtc::State& state) { state.cmos[0x0c] = 0x10; });
}

}  // namespace
}  // namespace caisson
