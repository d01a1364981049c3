#include "devices/chipset/pci_hotplug.h"

#include <random>
#include <vector>

#include <gtest/gtest.h>

#define CAISSON_FUZZ_AS_TEST
#include "devices/chipset/pci_hotplug_fuzz.cpp"  // the target itself; fuzz sources belong to no library
#include "devices/device_test_support.h"

namespace caisson {
namespace {

constexpr uint64_t up = 0, down = 4, eject = 8, present = 12;

class HotPlugTest : public testing::Test, public HotPlugSlots {
 protected:
  void SetUp() override {
    registers_.connect(this);
    acpi_.write(3, 2, 2, 1u << chipset::hotplug_gpe);
  }
  uint32_t occupied() const override { return 0x8000'0012; }
  void ejected(unsigned slot) override { ejected_.push_back(slot); }

  uint32_t read(uint64_t at, unsigned size = 4) { return static_cast<uint32_t>(registers_.read(0, at, size)); }
  void clear_event() { acpi_.write(3, 0, 2, 1u << chipset::hotplug_gpe); }

  FakeClock clock_;
  fuzz::NoPower power_;
  test_support::RecordingLine sci_;
  AcpiPm acpi_{sci_, clock_, power_};
  PciHotPlug registers_{acpi_};
  std::vector<unsigned> ejected_;
};

TEST_F(HotPlugTest, RequestsStandUntilTheGuestHasTakenThem) {
  registers_.inserted(4);
  registers_.inserted(31);
  EXPECT_TRUE(sci_.level());
  clear_event();
  EXPECT_FALSE(sci_.level()) << "an edge: the registers do not hold it";
  EXPECT_EQ(read(up), 0x8000'0010u);
  registers_.write(0, up, 4, 0x10);
  EXPECT_EQ(read(up), 0x8000'0000u);
  registers_.write(0, up + 3, 1, 0x80);
  EXPECT_EQ(read(up), 0u);
  registers_.want_back(1);
  EXPECT_TRUE(sci_.level());
  EXPECT_EQ(read(down), 2u);
  EXPECT_EQ(read(down, 1) & 0xff, 2u);
  registers_.want_no_more(1);
  EXPECT_EQ(read(down), 0u);
}

TEST_F(HotPlugTest, EjectsEachSlotThatIsNamed) {
  registers_.write(0, eject, 4, 0x8000'0002);
  EXPECT_EQ(ejected_, (std::vector<unsigned>{1, 31}));
  registers_.write(0, eject + 1, 1, 0x01);
  EXPECT_EQ(ejected_.back(), 8u);
  EXPECT_EQ(read(eject), 0u);
  registers_.connect(nullptr);
  registers_.write(0, eject, 4, 0xffff'ffff);
  EXPECT_EQ(ejected_.size(), 3u);
  EXPECT_EQ(read(present), 0u);
}

TEST_F(HotPlugTest, SaysWhatIsThereAndTakesNoWordAboutIt) {
  EXPECT_EQ(read(present), 0x8000'0012u);
  EXPECT_EQ(read(present + 3, 1) & 0xff, 0x80u);
  registers_.write(0, present, 4, 0);
  EXPECT_EQ(read(present), 0x8000'0012u);
}

TEST_F(HotPlugTest, RoundTripAndReset) {
  test_support::expect_round_trip(registers_);
  registers_.inserted(3);
  registers_.want_back(4);
  registers_.reset();
  EXPECT_EQ(read(up) | read(down), 0u);
}

TEST(HotPlugFuzz, RandomInputsDoNoHarm) {
  std::mt19937 random(20230611);
  unsigned ejects = 0;
  std::vector<uint8_t> input(1500);
  for (unsigned round = 0; round < 300; ++round) {
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    ejects += hotplug_fuzz::run(input);
  }
  EXPECT_GT(ejects, 1000u);
}

}  // namespace
}  // namespace caisson
