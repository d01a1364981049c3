#include "devices/chipset/ioapic.h"

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "devices/chipset/interrupt_router.h"
#include "devices/chipset/local_apic.h"
#include "devices/device_test_support.h"

namespace caisson {
namespace {

class IoApicTest : public ::testing::Test {
 protected:
  IoApicTest() : bus_(lock_, clock_, {.cpus = 2}), router_(bus_), ioapic_(router_.ioapic()) {
    for (unsigned i = 0; i < 2; ++i) bus_.local_apic(i).write_register(0xf0, 0x1ff);
    bus_.local_apic(0).write_register(0x350, 0x1'0700);  // the PIC stays out of the way
  }
  uint32_t get(uint8_t index) {
    ioapic_.write(0, 0, 4, index);
    return static_cast<uint32_t>(ioapic_.read(0, 0x10, 4));
  }
  void put(uint8_t index, uint32_t value) {
    ioapic_.write(0, 0, 4, index);
    ioapic_.write(0, 0x10, 4, value);
  }
  void route(unsigned pin, uint32_t low, uint32_t destination = 0) {
    put(static_cast<uint8_t>(0x11 + 2 * pin), destination << 24);
    put(static_cast<uint8_t>(0x10 + 2 * pin), low);
  }
  // Without the device lock, as a vCPU's thread.
  std::optional<uint8_t> take(unsigned cpu = 0) { return bus_.local_apic(cpu).acknowledge(); }
  void end(unsigned cpu = 0) { bus_.local_apic(cpu).write_register(0xb0, 0); }

  std::mutex lock_;
  FakeClock clock_;
  ApicBus bus_;
  InterruptRouter router_;
  IoApic& ioapic_;
};

TEST_F(IoApicTest, Registers) {
  EXPECT_EQ(get(1), 0x0017'0020u);
  EXPECT_EQ(get(0x10), 0x1'0000u);
  EXPECT_EQ(get(0x3f), 0u);
  EXPECT_EQ(get(0x40), 0u);
  put(0, 0xff00'0000);
  EXPECT_EQ(get(0), 0x0f00'0000u);
  route(5, 0xffff'ffff, 0xab);
  EXPECT_EQ(get(0x1a), 0x1'afffu) << "delivery status and remote IRR cannot be written";
  EXPECT_EQ(get(0x1b), 0xab00'0000u);
}

TEST_F(IoApicTest, EdgesDeliverOnceAndAreLostWhileMasked) {
  route(4, 0x41, 1);
  router_.line(4).set(true);
  router_.line(4).set(true);
  EXPECT_EQ(take(1), 0x41);
  end(1);
  EXPECT_EQ(take(1), std::nullopt);
  router_.line(4).set(false);
  route(4, 0x1'0041, 1);
  router_.line(4).set(true);
  route(4, 0x41, 1);
  EXPECT_EQ(take(1), std::nullopt);
  router_.line(4).set(false);
  router_.line(4).set(true);
  EXPECT_EQ(take(1), 0x41);
}

TEST_F(IoApicTest, LevelsComeAgainUntilTheLineFalls) {
  route(16, 0x8052);
  auto& line = router_.line(16);
  line.set(true);
  EXPECT_EQ(get(0x30), 0xc052u) << "remote IRR";
  EXPECT_EQ(take(), 0x52);
  end();
  EXPECT_EQ(take(), 0x52) << "the line is still high";
  line.set(false);
  end();
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_EQ(get(0x30), 0x8052u);
  // High while masked: delivered when unmasked.
  route(16, 0x1'8052);
  line.set(true);
  EXPECT_EQ(take(), std::nullopt);
  route(16, 0x8052);
  EXPECT_EQ(take(), 0x52);
  // The EOI register does what a broadcast does.
  line.set(false);
  ioapic_.write(0, 0x40, 4, 0x52);
  EXPECT_EQ(get(0x30), 0x8052u);
}

TEST_F(IoApicTest, RemoteIrrClearsThroughEdgeMode) {
  route(17, 0x8053);
  router_.line(17).set(true);
  EXPECT_EQ(get(0x32) & 0x4000, 0x4000u);
  route(17, 0x1'0053);
  route(17, 0x1'8053);
  EXPECT_EQ(get(0x32) & 0x4000, 0u);
}

TEST_F(IoApicTest, SharedLinesAreTheOrOfTheirSources) {
  route(18, 0x8054);
  auto first = router_.shared_line(18);
  auto second = router_.shared_line(18);
  first->set(true);
  second->set(true);
  EXPECT_EQ(take(), 0x54);
  first->set(false);
  end();
  EXPECT_EQ(take(), 0x54) << "the second source still asks";
  second.reset();
  end();
  EXPECT_EQ(take(), std::nullopt) << "a source that goes lets go of the line";
}

TEST_F(IoApicTest, IsaInterrupt0ComesInAtPin2) {
  route(0, 0x60);
  route(2, 0x62);
  router_.line(0).set(true);
  EXPECT_EQ(take(), 0x62);
  EXPECT_EQ(take(), std::nullopt);
  // And the PIC sees input 0.
  router_.pic().write(0, 0, 1, 0x0a);
  EXPECT_EQ(router_.pic().read(0, 0, 1), 1u);
}

TEST_F(IoApicTest, UntakenLevelIsNotRemembered) {
  route(19, 0x8055, 9);
  router_.line(19).set(true);
  EXPECT_EQ(get(0x36), 0x8055u) << "nobody took it, so nobody will end it";
}

TEST_F(IoApicTest, RoundTrip) {
  route(3, 0x8043);
  router_.line(3).set(true);
  test_support::expect_round_trip<IoApic>(ioapic_);
}

TEST_F(IoApicTest, RestoreMakesNoSecondEdge) {
  route(4, 0x41);
  router_.line(4).set(true);
  const auto bytes = test_support::saved(ioapic_);
  EXPECT_EQ(take(), 0x41);
  end();
  ASSERT_TRUE(ioapic_.restore(bytes).has_value());
  router_.line(4).set(true);
  EXPECT_EQ(take(), std::nullopt);
}

}  // namespace
}  // namespace caisson
