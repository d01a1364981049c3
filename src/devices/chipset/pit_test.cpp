#include "devices/chipset/pit.h"

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "devices/chipset/layout.h"
#include "devices/chipset/scale.h"
#include "devices/device_test_support.h"

namespace caisson {
namespace {

class PitTest : public ::testing::Test {
 protected:
  PitTest() : pit_(line_, clock_) {}
  void control(uint8_t value) { pit_.write(0, 3, 1, value); }
  void count(unsigned which, uint16_t value) {
    pit_.write(0, which, 1, value & 0xff);
    pit_.write(0, which, 1, value >> 8);
  }
  uint8_t byte(unsigned which) { return static_cast<uint8_t>(pit_.read(0, which, 1)); }
  unsigned word(unsigned which) {
    const unsigned low = byte(which);
    return low | static_cast<unsigned>(byte(which)) << 8;
  }
  // To where exactly `ticks` more ticks have been counted since `since`.
  void pass(uint64_t ticks) {
    passed_ += ticks;
    clock_.advance(since_ + chipset::scale_up(passed_, chipset::ns_per_s, chipset::pit_hz) - clock_.now_ns());
  }
  void mark() {
    since_ = clock_.now_ns();
    passed_ = 0;
  }
  uint64_t port61() { return pit_.read(1, 0, 1); }

  test_support::RecordingLine line_;
  FakeClock clock_;
  Pit pit_;
  uint64_t since_ = 0;
  uint64_t passed_ = 0;
};

// Linux: pit_set_periodic() with HZ=250.
TEST_F(PitTest, RateGeneratorTicks) {
  control(0x34);
  count(0, 4773);
  mark();
  const unsigned before = line_.rises();
  for (unsigned i = 1; i <= 250; ++i) {
    pass(4773);
    EXPECT_EQ(line_.rises() - before, i);
  }
  EXPECT_TRUE(line_.level());
  pass(1000);
  control(0x00);  // latch
  EXPECT_EQ(word(0), 4773u - 1000u);
}

// Linux: pit_set_oneshot(), pit_next_event().
TEST_F(PitTest, InterruptOnTerminalCount) {
  control(0x30);
  EXPECT_FALSE(line_.level());
  for (int i = 0; i < 3; ++i) {
    count(0, 1000);
    mark();
    EXPECT_FALSE(line_.level());
    pass(999);
    EXPECT_FALSE(line_.level());
    pass(1);
    EXPECT_TRUE(line_.level());
  }
  EXPECT_EQ(line_.rises(), 3u);
  pass(1'000'000);
  EXPECT_EQ(line_.rises(), 3u);
}

TEST_F(PitTest, ControlWordStopsTheInterrupt) {
  control(0x34);
  count(0, 1000);
  control(0x30);  // pit_shutdown(): mode 0, and then a count of 0
  mark();
  const unsigned before = line_.rises();
  pass(10'000'000);
  EXPECT_EQ(line_.rises(), before);
}

// Linux: quick_pit_calibrate() watches the high byte of counter 2 fall.
TEST_F(PitTest, CalibrationReadsTheHighByte) {
  pit_.write(1, 0, 1, 0x01);
  control(0xb0);
  pit_.write(0, 2, 1, 0xff);
  pit_.write(0, 2, 1, 0xff);
  mark();
  (void)byte(2);
  EXPECT_EQ(byte(2), 0xff);
  pass(256);
  (void)byte(2);
  EXPECT_EQ(byte(2), 0xfe);
  pass(256);
  (void)byte(2);
  EXPECT_EQ(byte(2), 0xfd);
}

// Linux: pit_calibrate_tsc() waits for port 0x61 bit 5.
TEST_F(PitTest, Port61ShowsOutput2AndItsGateHoldsTheCount) {
  pit_.write(1, 0, 1, 0x01);
  control(0xb0);
  count(2, 1000);
  mark();
  EXPECT_EQ(port61() & 0x21, 0x01u);
  pass(500);
  pit_.write(1, 0, 1, 0x02);  // gate low, speaker on
  pass(10'000);
  EXPECT_EQ(port61() & 0x23, 0x02u);
  pit_.write(1, 0, 1, 0x01);
  mark();
  pass(498);
  EXPECT_EQ(port61() & 0x20, 0u);
  pass(3);
  EXPECT_EQ(port61() & 0x20, 0x20u);
  const uint64_t refresh = port61() & 0x10;
  clock_.advance(15'085);
  EXPECT_NE(port61() & 0x10, refresh);
}

TEST_F(PitTest, ReadBackAndLatches) {
  control(0x34);
  count(0, 0x1234);
  mark();
  pass(0x34);
  control(0xc2);  // read-back: status and count of counter 0
  pass(100);
  const uint8_t status = byte(0);
  EXPECT_EQ(status, 0x80 | 0x34) << "output high, count loaded, the control word";
  EXPECT_EQ(word(0), 0x1200u) << "the count at the latch";
  EXPECT_EQ(word(0), 0x1200u - 100);
  control(0x70);
  control(0xe4);  // status of counter 1: null count, output low
  EXPECT_EQ(byte(1), 0x40 | 0x30);
}

TEST_F(PitTest, LatchHoldsUntilRead) {
  control(0x34);
  count(0, 50'000);
  mark();
  pass(10);
  control(0x00);
  pass(10);
  control(0x00);
  EXPECT_EQ(word(0), 49'990u);
}

TEST_F(PitTest, BcdCounts) {
  control(0x31);
  count(0, 0x1000);
  mark();
  pass(1);
  EXPECT_EQ(word(0), 0x0999u);
}

TEST_F(PitTest, SquareWaveIsSymmetric) {
  pit_.write(1, 0, 1, 0x01);
  control(0xb6);
  count(2, 1001);
  mark();
  pass(500);
  EXPECT_TRUE(pit_.output(2));
  pass(1);
  EXPECT_FALSE(pit_.output(2));
  pass(499);
  EXPECT_FALSE(pit_.output(2));
  pass(1);
  EXPECT_TRUE(pit_.output(2));
}

TEST_F(PitTest, OneShotNeedsTheGate) {
  control(0xb2);
  count(2, 100);
  mark();
  pass(1000);
  EXPECT_TRUE(pit_.output(2));
  pit_.write(1, 0, 1, 0x01);
  mark();
  EXPECT_FALSE(pit_.output(2));
  pass(99);
  EXPECT_FALSE(pit_.output(2));
  pass(1);
  EXPECT_TRUE(pit_.output(2));
  pit_.write(1, 0, 1, 0x00);
  pit_.write(1, 0, 1, 0x01);  // it can be triggered again
  EXPECT_FALSE(pit_.output(2));
}

TEST_F(PitTest, StrobesDipForOneTick) {
  pit_.write(1, 0, 1, 0x01);
  control(0xb8);
  count(2, 10);
  mark();
  pass(9);
  EXPECT_TRUE(pit_.output(2));
  pass(1);
  EXPECT_FALSE(pit_.output(2));
  pass(1);
  EXPECT_TRUE(pit_.output(2));
}

TEST_F(PitTest, ANewPeriodWaitsForTheOldOne) {
  control(0x34);
  count(0, 1000);
  mark();
  pass(400);
  count(0, 300);
  const unsigned before = line_.rises();
  pass(599);
  EXPECT_EQ(line_.rises(), before);
  pass(2);
  EXPECT_EQ(line_.rises(), before + 1);
  pass(301);
  EXPECT_EQ(line_.rises(), before + 2);
}

TEST_F(PitTest, HostileRatesAreBounded) {
  control(0x34);
  count(0, 1);
  const unsigned before = line_.rises();
  clock_.advance(10'000'000);
  EXPECT_GT(line_.rises(), before + 50);
  EXPECT_LT(line_.rises(), before + 250);
}

TEST_F(PitTest, RoundTrip) {
  control(0x34);
  count(0, 1000);
  test_support::expect_round_trip<Pit>(pit_, [](Pit::State& state) {
    for (auto& counter : state.counters) {
      counter.reload = 77;
      counter.access = 2;
    }
  });
}

}  // namespace
}  // namespace caisson
