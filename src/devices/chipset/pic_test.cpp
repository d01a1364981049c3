#include "devices/chipset/pic.h"

#include <gtest/gtest.h>

#include "devices/device_test_support.h"

namespace caisson {
namespace {

using test_support::RecordingLine;

class PicTest : public ::testing::Test {
 protected:
  PicTest() : pic_(output_) {}
  // As Linux does it in init_8259A().
  void initialise(uint8_t icw4 = 1) {
    pic_.write(0, 1, 1, 0xff);
    pic_.write(0, 0, 1, 0x11);
    pic_.write(0, 1, 1, 0x30);
    pic_.write(0, 1, 1, 0x04);
    pic_.write(0, 1, 1, icw4);
    pic_.write(1, 0, 1, 0x11);
    pic_.write(1, 1, 1, 0x38);
    pic_.write(1, 1, 1, 0x02);
    pic_.write(1, 1, 1, 0x01);
    mask(0, 0);
  }
  void mask(uint8_t primary, uint8_t secondary) {
    pic_.write(0, 1, 1, primary);
    pic_.write(1, 1, 1, secondary);
  }
  void pulse(unsigned irq) {
    pic_.set_input(irq, false);
    pic_.set_input(irq, true);
  }
  uint64_t isr(unsigned chip) {
    pic_.write(chip, 0, 1, 0x0b);
    return pic_.read(chip, 0, 1);
  }

  RecordingLine output_;
  Pic pic_;
};

TEST_F(PicTest, PriorityNestingAndEoi) {
  initialise();
  pulse(4);
  EXPECT_TRUE(output_.level());
  EXPECT_EQ(pic_.acknowledge(), 0x34);
  EXPECT_FALSE(output_.level());
  pulse(5);
  EXPECT_FALSE(output_.level()) << "lower than what is in service";
  pulse(1);
  EXPECT_EQ(pic_.acknowledge(), 0x31);
  EXPECT_EQ(isr(0), 0x12u);
  pic_.write(0, 0, 1, 0x20);
  EXPECT_EQ(isr(0), 0x10u);
  pic_.write(0, 0, 1, 0x64);  // specific EOI, as Linux ends interrupts
  EXPECT_EQ(pic_.acknowledge(), 0x35);
}

TEST_F(PicTest, Cascade) {
  initialise();
  pulse(8);
  EXPECT_TRUE(output_.level());
  EXPECT_EQ(pic_.acknowledge(), 0x38);
  EXPECT_EQ(isr(0), 0x04u);
  EXPECT_EQ(isr(1), 0x01u);
  pic_.write(1, 0, 1, 0x60);
  pic_.write(0, 0, 1, 0x62);
  EXPECT_EQ(isr(0), 0u);
  mask(0, 0xff);
  pulse(12);
  EXPECT_FALSE(output_.level());
  mask(0, 0);
  EXPECT_TRUE(output_.level());
}

TEST_F(PicTest, EdgesGoneBeforeAcknowledgeAreSpurious) {
  initialise();
  pulse(3);
  pic_.set_input(3, false);
  EXPECT_FALSE(output_.level());
  EXPECT_EQ(pic_.acknowledge_ext_int(), std::nullopt);
  EXPECT_EQ(pic_.acknowledge(), 0x37);
  EXPECT_EQ(isr(0), 0u) << "a spurious interrupt is not in service";
}

TEST_F(PicTest, LevelInputsAskAgain) {
  initialise();
  pic_.write(2, 1, 1, 0xff);
  EXPECT_EQ(pic_.read(2, 1, 1), 0xdeu) << "8 and 13 are always edge-triggered";
  pic_.set_input(9, true);
  EXPECT_EQ(pic_.acknowledge(), 0x39);
  pic_.write(1, 0, 1, 0x20);
  pic_.write(0, 0, 1, 0x20);
  EXPECT_TRUE(output_.level());
  pic_.set_input(9, false);
  EXPECT_FALSE(output_.level());
}

TEST_F(PicTest, AutoEoiAndRotation) {
  initialise(3);
  pulse(4);
  EXPECT_EQ(pic_.acknowledge(), 0x34);
  EXPECT_EQ(isr(0), 0u);
  pic_.write(0, 0, 1, 0xc3);  // set priority: 3 lowest, 4 highest
  pulse(0);
  pulse(5);
  EXPECT_EQ(pic_.acknowledge(), 0x35);
  EXPECT_EQ(pic_.acknowledge(), 0x30);
}

TEST_F(PicTest, SpecialMaskLetsLowerOnesIn) {
  initialise();
  pulse(1);
  EXPECT_EQ(pic_.acknowledge(), 0x31);
  pulse(6);
  EXPECT_FALSE(output_.level());
  pic_.write(0, 0, 1, 0x68);  // special mask mode
  EXPECT_TRUE(output_.level());
  EXPECT_EQ(pic_.acknowledge(), 0x36);
}

TEST_F(PicTest, Poll) {
  initialise();
  pic_.write(0, 0, 1, 0x0c);
  EXPECT_EQ(pic_.read(0, 0, 1) & 0x80, 0u);
  pulse(6);
  pic_.write(0, 0, 1, 0x0c);
  EXPECT_EQ(pic_.read(0, 0, 1), 0x86u);
  EXPECT_EQ(isr(0), 0x40u);
}

// Linux looks whether a PIC is there by writing a mask and reading it back (probe_8259A).
TEST_F(PicTest, MaskReadsBack) {
  initialise();
  mask(0xfb, 0xff);
  EXPECT_EQ(pic_.read(0, 1, 1), 0xfbu);
  EXPECT_EQ(pic_.read(1, 1, 1), 0xffu);
}

TEST_F(PicTest, NothingBeforeInitialisationIsComplete) {
  pic_.write(0, 0, 1, 0x11);
  pulse(1);
  EXPECT_FALSE(output_.level());
}

TEST_F(PicTest, RoundTrip) {
  initialise();
  pulse(10);
  test_support::expect_round_trip<Pic>(pic_, [](Pic::State& state) {
    state.chips[0].vector_base = 0x40;
    state.chips[1].vector_base = 0x48;
    for (auto& chip : state.chips) chip.init_step = 3;
    state.chips[0].elcr = 0x08;
    state.chips[1].elcr = 0x02;
  });
}

}  // namespace
}  // namespace caisson
