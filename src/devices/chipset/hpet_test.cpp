#include "devices/chipset/hpet.h"

#include <array>

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "devices/device_test_support.h"

namespace caisson {
namespace {

class HpetTest : public testing::Test {
 protected:
  class Wire final : public InterruptLine {
   public:
    explicit Wire(test_support::RecordingLine& line) : line_(line) {}
    void set(bool high) override { line_.set(high); }

   private:
    test_support::RecordingLine& line_;
  };
  static constexpr uint32_t level = 2, interrupts = 4, periodic = 8, sets_value = 64, narrow = 256;
  static constexpr uint32_t route(uint32_t gsi) { return gsi << 9; }

  uint64_t get(uint64_t offset, unsigned size = 8) { return hpet.read(0, offset, size); }
  void set(uint64_t offset, uint64_t value, unsigned size = 8) { hpet.write(0, offset, size, value); }
  static uint64_t timer(unsigned index) { return 0x100 + index * 0x20; }
  void run(uint64_t ticks) { clock.advance(ticks * Hpet::tick_ns); }

  FakeClock clock;
  std::array<test_support::RecordingLine, 24> lines;
  test_support::RecordingLine pit_line, rtc_line;
  GatedLine pit{pit_line}, rtc{rtc_line};
  Hpet hpet{clock, [this](unsigned gsi) { return std::make_unique<Wire>(lines[gsi]); }, pit, rtc};
};

TEST_F(HpetTest, CountsWhileEnabled) {
  EXPECT_EQ(get(0) >> 32, 10'000'000u);  // 10 ns
  EXPECT_EQ(get(0, 4) & 0xffff, 0xa201u);
  run(100);
  EXPECT_EQ(get(0xf0), 0u);
  set(0xf0, 0xffff'fff0);
  set(0x10, 1);
  run(0x20);
  EXPECT_EQ(get(0xf0), 0x1'0000'0010u);
  EXPECT_EQ(get(0xf4, 4), 1u);
  set(0x10, 0, 4);
  run(5);
  EXPECT_EQ(get(0xf0), 0x1'0000'0010u);
  set(0xf4, 7, 4);
  EXPECT_EQ(get(0xf0), 0x7'0000'0010u);
}

TEST_F(HpetTest, FiresOnce) {
  set(timer(2), interrupts | route(20));
  set(timer(2) + 8, 1000);
  EXPECT_EQ(get(timer(2)) >> 32, 0xf0'0000u);
  run(5000);
  EXPECT_EQ(lines[20].rises(), 0u) << "it is halted";
  set(0x10, 1);
  run(999);
  EXPECT_EQ(lines[20].rises(), 0u);
  run(1);
  EXPECT_EQ(lines[20].rises(), 1u);
  EXPECT_FALSE(lines[20].level());
  run(1'000'000);
  EXPECT_EQ(lines[20].rises(), 1u);
  // With 32 bits it comes again when the count has gone round; what is in the past waits for that.
  set(timer(2), interrupts | route(20) | narrow);
  run(0x1'0000'0000);
  EXPECT_EQ(lines[20].rises(), 2u);
  run(0x1'0000'0000);
  EXPECT_EQ(lines[20].rises(), 3u);
  set(timer(2), route(20));
  run(0x1'0000'0000);
  EXPECT_EQ(lines[20].rises(), 3u);
  set(timer(2), route(5));  // not a possible one
  EXPECT_EQ(get(timer(2), 4) >> 9 & 31, 0u);
}

TEST_F(HpetTest, LevelsStayUntilTheyAreCleared) {
  set(0x10, 1);
  set(timer(1), interrupts | level | route(21));
  set(timer(1) + 8, 100);
  run(100);
  EXPECT_TRUE(lines[21].level());
  EXPECT_EQ(get(0x20), 2u);
  set(0x20, 1);
  EXPECT_TRUE(lines[21].level());
  set(0x20, 2);
  EXPECT_FALSE(lines[21].level());
}

TEST_F(HpetTest, PeriodsDoNotAddUpLateness) {
  set(0x10, 1 | 2);
  set(timer(0), interrupts | periodic | sets_value);
  set(timer(0) + 8, 150'000);  // the first
  set(timer(0) + 8, 100'000);  // one every millisecond from then on
  run(149'999);
  EXPECT_EQ(lines[0].rises(), 0u);
  run(1);
  EXPECT_EQ(lines[0].rises(), 1u);
  run(1'000'000);
  EXPECT_EQ(lines[0].rises(), 11u);
  EXPECT_EQ(get(timer(0) + 8), 1'250'000u);
  // As short a period as can be is no flood.
  set(timer(0), interrupts | periodic | sets_value);
  set(timer(0) + 8, get(0xf0) + 10);
  set(timer(0) + 8, 1);
  run(100'000);
  EXPECT_LE(lines[0].rises(), 11u + 21u);
  EXPECT_GE(lines[0].rises(), 11u + 19u);
}

TEST_F(HpetTest, TakesThePlacesOfPitAndRtc) {
  pit.set(true);
  EXPECT_TRUE(pit_line.level());
  set(0x10, 3);
  EXPECT_FALSE(pit_line.level());
  rtc.set(true);
  EXPECT_FALSE(rtc_line.level());
  set(timer(1), interrupts | route(22));
  set(timer(1) + 8, 10);
  run(10);
  EXPECT_EQ(lines[8].rises(), 1u);
  EXPECT_EQ(lines[22].rises(), 0u);
  hpet.reset();
  EXPECT_TRUE(pit_line.level());
  EXPECT_TRUE(rtc_line.level());
}

TEST_F(HpetTest, RoundTrip) {
  set(0x10, 1);
  set(timer(2), interrupts | route(20));
  set(timer(2) + 8, 1000);
  fields::Buffer saved;
  hpet.save(saved);
  run(500);
  test_support::expect_round_trip<Hpet>(hpet, [](Hpet::State& state) {
    for (Hpet::Timer& one : state.timers) one.config = 2;
  });
  EXPECT_TRUE(hpet.restore(saved));
  run(500);
  EXPECT_EQ(lines[20].rises(), 1u);
}

}  // namespace
}  // namespace caisson
