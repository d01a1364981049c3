// The chipset through the bus: ACPI, reset ports, i8042, pvpanic, debug exit, and that everything stands where it
// should.
#include "devices/chipset/attach.h"

#include <array>
#include <string>

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "devices/device_test_support.h"

namespace caisson {
namespace {

class StringSink final : public CharSink {
 public:
  size_t write(std::span<const uint8_t> bytes) override {
    text.append(bytes.begin(), bytes.end());
    return bytes.size();
  }
  std::string text;
};

class ChipsetTest : public ::testing::Test {
 protected:
  ChipsetTest()
      : chipset_(*Chipset::create(bus_, clock_, power_, serial_,
                                  {.cpus = 2, .low_memory = 512 << 20, .debug_exit = true})) {}

  uint64_t in(uint16_t port, unsigned size = 1) { return bus_.read(Space::Port, port, size); }
  void out(uint16_t port, uint64_t value, unsigned size = 1) { bus_.write(Space::Port, port, size, value); }
  bool asks(uint8_t irq) {
    out(irq < 8 ? 0x20 : 0xa0, 0x0a);
    return (in(irq < 8 ? 0x20 : 0xa0) >> (irq & 7) & 1) != 0;
  }
  void advance(uint64_t ns) {
    const std::lock_guard hold(bus_.lock());
    clock_.advance(ns);
  }
  void press_power_button() {
    const std::lock_guard hold(bus_.lock());
    chipset_->acpi_pm().press_power_button();
  }

  Bus bus_;
  FakeClock clock_;
  test_support::RecordingPower power_;
  StringSink serial_;
  std::unique_ptr<Chipset> chipset_;
  using Requests = std::vector<test_support::RecordingPower::Request>;
};

TEST_F(ChipsetTest, RefusesImpossibleCpuCounts) {
  Bus bus;
  EXPECT_FALSE(Chipset::create(bus, clock_, power_, serial_, {.cpus = 0}).has_value());
  EXPECT_FALSE(Chipset::create(bus, clock_, power_, serial_, {.cpus = 256}).has_value());
}

TEST_F(ChipsetTest, ASecondSerialPortIsThereWhereItIsWanted) {
  EXPECT_EQ(in(0x2fd), 0xffu);
  Bus bus;
  StringSink second;
  auto chipset = *Chipset::create(bus, clock_, power_, serial_, {.cpus = 1, .serial2 = &second});
  bus.write(Space::Port, 0x2f8, 1, 'x');
  EXPECT_EQ(second.text, "x");
  EXPECT_TRUE(serial_.text.empty());
  const std::lock_guard hold(bus.lock());
  ASSERT_NE(chipset->com2(), nullptr);
  const std::array<uint8_t, 1> more{'y'};
  EXPECT_EQ(chipset->com2()->receive(more), 1u);
}

TEST_F(ChipsetTest, EverythingAnswersAtItsPlace) {
  for (const char c : std::string_view("ok\n")) out(0x3f8, static_cast<uint8_t>(c));
  EXPECT_EQ(serial_.text, "ok\n");
  EXPECT_EQ(in(0x3fd), 0x60u);
  out(0x70, 0x0d);
  EXPECT_EQ(in(0x71), 0x80u);
  bus_.write(Space::Memory, 0xfec0'0000, 4, 1);
  EXPECT_EQ(bus_.read(Space::Memory, 0xfec0'0010, 4), 0x0017'0020u);
  out(0x21, 0x5a);
  EXPECT_EQ(in(0x21), 0x5au);
  EXPECT_EQ(in(0x505), 3u);
  EXPECT_EQ(bus_.unclaimed(), 0u);
}

// The PIT through the PIC's virtual wire, and through the I/O APIC as Linux's check_timer() sets it up. acknowledge()
// and EOI take the device lock themselves.
TEST_F(ChipsetTest, TimerInterruptReachesTheCpu) {
  for (const uint16_t base : {uint16_t{0x20}, uint16_t{0xa0}}) {
    out(base, 0x11);
    out(static_cast<uint16_t>(base + 1), base == 0x20 ? 0x30 : 0x38);
    out(static_cast<uint16_t>(base + 1), base == 0x20 ? 4 : 2);
    out(static_cast<uint16_t>(base + 1), 1);
    out(static_cast<uint16_t>(base + 1), base == 0x20 ? 0xfe : 0xff);
  }
  out(0x43, 0x34);
  out(0x40, 0xa9);
  out(0x40, 0x04);
  advance(2'000'000);
  LocalApic& apic = chipset_->local_apic(0);
  EXPECT_EQ(apic.acknowledge(), 0x30);
  out(0x20, 0x20);
  out(0x21, 0xff);
  apic.write_register(0xf0, 0x1ff);
  bus_.write(Space::Memory, 0xfec0'0000, 4, 0x14);
  bus_.write(Space::Memory, 0xfec0'0010, 4, 0x8031);  // pin 2, level: so that its EOI is broadcast
  EXPECT_EQ(apic.acknowledge(), 0x31);
  apic.write_register(0xb0, 0);
  EXPECT_EQ(apic.acknowledge(), 0x31);
}

TEST_F(ChipsetTest, PowerButtonRaisesTheSci) {
  EXPECT_EQ(in(0x604, 2), 1u) << "SCI_EN always";
  press_power_button();
  EXPECT_FALSE(asks(9));
  out(0x602, 0x100, 2);
  EXPECT_TRUE(asks(9));
  EXPECT_EQ(in(0x600, 2), 0x100u);
  EXPECT_EQ(in(0x600, 4), 0x100'0100u);
  EXPECT_EQ(in(0x601), 1u);
  out(0x600, 0x100, 2);
  EXPECT_FALSE(asks(9));
  EXPECT_EQ(in(0x600, 2), 0u);
  EXPECT_EQ(in(0x602, 2), 0x100u);
}

TEST_F(ChipsetTest, SleepType5PowersOffAndOthersDoNot) {
  out(0x604, 3 << 10 | 1 << 13, 2);
  EXPECT_TRUE(power_.requests.empty());
  out(0x604, 5 << 10, 2);
  EXPECT_TRUE(power_.requests.empty());
  out(0x604, 5 << 10 | 1 << 13, 2);
  EXPECT_EQ(power_.requests, (Requests{{PowerEvent::PowerOff, 0}}));
  EXPECT_EQ(in(0x604, 2), 5u << 10 | 1);
}

TEST_F(ChipsetTest, PmTimerCountsAndOverflows) {
  const uint64_t before = in(0x608, 4);
  advance(1'000'000'000);
  EXPECT_NEAR(static_cast<double>(in(0x608, 4) - before), 3'579'545, 2);
  out(0x602, 1, 2);
  advance(599'000'000'000);  // the top bit changes 599.9 s after the start
  EXPECT_TRUE(asks(9));
  EXPECT_EQ(in(0x600, 2), 1u);
  out(0x600, 1, 2);
  EXPECT_FALSE(asks(9));
}

TEST_F(ChipsetTest, GeneralPurposeEvents) {
  {
    const std::lock_guard hold(bus_.lock());
    chipset_->acpi_pm().raise_gpe(9);
    chipset_->acpi_pm().raise_gpe(99);
  }
  EXPECT_EQ(in(0x620, 2), 0x200u);
  EXPECT_FALSE(asks(9));
  out(0x623, 0x02);
  EXPECT_TRUE(asks(9));
  out(0x621, 0x02);
  EXPECT_FALSE(asks(9));
}

TEST_F(ChipsetTest, ResetPorts) {
  out(0xcf9, 0x02);
  EXPECT_TRUE(power_.requests.empty());
  out(0xcf9, 0x06);
  EXPECT_EQ(power_.requests.size(), 1u);
  out(0xcf9, 0x06);
  EXPECT_EQ(power_.requests.size(), 1u) << "only the rising edge";
  out(0x92, 0x02);
  EXPECT_EQ(power_.requests.size(), 1u);
  out(0x92, 0x03);
  EXPECT_EQ(power_.requests.size(), 2u);
  out(0x64, 0xfe);
  EXPECT_EQ(power_.requests.size(), 3u);
  for (const auto& request : power_.requests) EXPECT_EQ(request.event, PowerEvent::Reset);
}

// Linux: i8042_controller_check/selftest/init, i8042_check_aux, and atkbd's first command.
TEST_F(ChipsetTest, KeyboardControllerProbeEndsAtOnce) {
  EXPECT_EQ(in(0x64) & 3, 0u);
  out(0x64, 0xaa);
  EXPECT_EQ(in(0x64) & 1, 1u);
  EXPECT_EQ(in(0x60), 0x55u);
  EXPECT_EQ(in(0x64) & 1, 0u);
  out(0x64, 0x60);
  out(0x60, 0x41);
  out(0x64, 0x20);
  EXPECT_TRUE(asks(1));
  EXPECT_EQ(in(0x60), 0x41u);
  EXPECT_FALSE(asks(1));
  out(0x64, 0xd3);
  out(0x60, 0x5a);
  EXPECT_EQ(in(0x64) & 0x21, 0x01u) << "not from an auxiliary port";
  EXPECT_EQ(in(0x60), 0x5au);
  out(0x64, 0xa9);
  EXPECT_NE(in(0x60), 0u);
  out(0x60, 0xf2);
  EXPECT_EQ(in(0x64) & 0x41, 0x41u) << "time-out";
  EXPECT_EQ(in(0x60), 0xfeu);
  EXPECT_TRUE(power_.requests.empty());
}

TEST_F(ChipsetTest, PanicAndDebugExit) {
  out(0x505, 2);
  EXPECT_TRUE(power_.requests.empty());
  out(0x505, 1);
  out(0xf4, 0x2a);
  EXPECT_EQ(power_.requests, (Requests{{PowerEvent::Panic, 1}, {PowerEvent::DebugExit, 0x2a}}));
}

TEST_F(ChipsetTest, RoundTrips) {
  test_support::expect_round_trip<AcpiPm>(chipset_->acpi_pm(), [](AcpiPm::State& s) { s.control = 2; });
  ResetControl reset(power_);
  test_support::expect_round_trip<ResetControl>(reset, [](ResetControl::State& s) { s.reset_control = 2; });
  test_support::RecordingLine line;
  test_support::RecordingLine mouse_line;
  KeyboardController keyboard(line, mouse_line, power_);
  test_support::expect_round_trip<KeyboardController>(keyboard, [](KeyboardController::State& s) {
    s.mouse.resolution = 1;
    s.mouse.right_by = 5;
  });
}

// The whole chipset from one machine into another: the same guest-visible state, and no interrupt that was not there.
TEST_F(ChipsetTest, StateMovesToAnotherMachine) {
  out(0x3fc, 0x08);
  out(0x3f9, 0x02);  // the serial port asks for service
  press_power_button();
  out(0x602, 0x100, 2);
  out(0x64, 0x60);
  out(0x60, 0x01);
  out(0x64, 0x20);
  std::vector<fields::Buffer> parts;
  for (unsigned cpu = 0; cpu < 2; ++cpu) parts.push_back(test_support::saved(chipset_->local_apic(cpu)));
  for (const Device* device : chipset_->devices()) parts.push_back(test_support::saved(*device));

  Bus bus;
  auto other = *Chipset::create(bus, clock_, power_, serial_, {.cpus = 2, .debug_exit = true});
  size_t next = 0;
  for (unsigned cpu = 0; cpu < 2; ++cpu) ASSERT_TRUE(other->local_apic(cpu).restore(parts[next++]).has_value());
  for (Device* device : other->devices()) {
    const auto done = device->restore(parts[next++]);
    ASSERT_TRUE(done.has_value()) << device->name() << ": " << done.error().message;
  }
  next = 0;
  for (unsigned cpu = 0; cpu < 2; ++cpu) EXPECT_EQ(test_support::saved(other->local_apic(cpu)), parts[next++]);
  for (const Device* device : other->devices())
    EXPECT_EQ(test_support::saved(*device), parts[next++]) << device->name();
}

TEST_F(ChipsetTest, ResetBringsBackThePowerOnState) {
  out(0x3fc, 0x08);
  out(0x3f9, 0x02);
  chipset_->local_apic(0).write_register(0xf0, 0x1ff);
  {
    const std::lock_guard hold(bus_.lock());
    chipset_->reset();
  }
  EXPECT_EQ(in(0x3f9), 0u);
  EXPECT_FALSE(asks(4));
  EXPECT_EQ(chipset_->local_apic(0).read_register(0xf0), 0xffu);
}

TEST(Ps2KeyboardTest, AnswersAndTranslatesKeys) {
  test_support::RecordingLine line;
  test_support::RecordingLine mouse_line;
  test_support::RecordingPower power;
  KeyboardController controller(line, mouse_line, power, true);
  const auto out = [&](uint8_t value) { controller.write(0, 0, 1, value); };
  const auto in = [&]() -> int {
    return (controller.read(1, 0, 1) & 1) != 0 ? static_cast<int>(controller.read(0, 0, 1)) : -1;
  };
  out(0xff);
  EXPECT_EQ(in(), 0xfa);
  EXPECT_EQ(in(), 0xaa);
  EXPECT_EQ(in(), -1);
  controller.write(1, 0, 1, 0x60);
  out(0x41);  // interrupt and translation
  EXPECT_TRUE(controller.key({0x1e}, true));
  EXPECT_EQ(line.rises(), 1u);
  EXPECT_TRUE(controller.key({0x1e}, false));
  EXPECT_TRUE(controller.key({0x48, true}, false));
  for (const int code : {0x1e, 0x9e, 0xe0, 0xc8, -1}) EXPECT_EQ(in(), code);
  EXPECT_EQ(line.rises(), 4u);  // an edge for each
  controller.write(1, 0, 1, 0x60);
  out(0x00);  // as the keyboard sends them
  EXPECT_TRUE(controller.key({0x1e}, false));
  for (const int code : {0xf0, 0x1c, -1}) EXPECT_EQ(in(), code);
  unsigned taken = 0;
  while (controller.key({0x1e}, true)) ++taken;
  EXPECT_GT(taken, 16u);
  EXPECT_LT(taken, 64u);
}

}  // namespace
}  // namespace caisson
