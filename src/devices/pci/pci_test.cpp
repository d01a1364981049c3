#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "bus/bus.h"
#include "devices/device_test_support.h"
#include "devices/pci/host_bridge.h"
#include "devices/pci/msix.h"

namespace caisson::pci {
namespace {

// A function with one BAR of each kind, each a page of bytes, and an interrupt pin.
class TestFunction final : public PciDevice {
 public:
  using State = ConfigSpace::State;
  explicit TestFunction(uint64_t small = 0x1000, uint64_t large = 0x4000)
      : PciDevice({.vendor = 0x1af4, .device = 0x10ff, .class_code = 0xff0102, .interrupt_pin = 1}) {
    add_bar(0, {.size = small});
    add_bar(2, {.size = large, .wide = true, .prefetchable = true});
  }
  std::string_view name() const override { return "test-function"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned) override { return region << 8 | (offset & 0xff); }
  void write(unsigned region, uint64_t offset, unsigned, uint64_t value) override { last = {region, offset, value}; }
  void reset() override { reset_config(); }
  void save(fields::Buffer& out) const override { fields::save(config_.state(), out); }
  Result<> restore(std::span<const uint8_t> in) override {
    State state = config_.state();
    if (auto done = fields::restore(state, in); !done) return done;
    return restore_config(state);
  }
  void add_ports() { add_bar(1, {.size = 64, .io = true}); }
  void pull(bool asserted) { set_intx(asserted); }

  std::array<uint64_t, 3> last{};
};

class PciTest : public testing::Test {
 protected:
  TestFunction& plug(unsigned slot, uint64_t small = 0x1000, uint64_t large = 0x4000) {
    auto device = std::make_unique<TestFunction>(small, large);
    TestFunction& reference = *device;
    bridge.plug(std::move(device), slot);
    return reference;
  }
  uint64_t config(unsigned slot, unsigned offset, unsigned size) {
    return bus.read(Space::Memory, layout.ecam_base + (slot << 15) + offset, size);
  }
  void set_config(unsigned slot, unsigned offset, unsigned size, uint64_t value) {
    bus.write(Space::Memory, layout.ecam_base + (slot << 15) + offset, size, value);
  }
  uint64_t memory(uint64_t address) { return bus.read(Space::Memory, address, 2); }

  Layout layout;
  Bus bus;
  std::array<test_support::RecordingLine, intx_gsi_count> lines;
  HostBridge bridge{bus, layout, [this](unsigned gsi) -> InterruptLine& { return lines[gsi - first_intx_gsi]; }};
};

TEST_F(PciTest, MechanismOneReachesFunctionsByPorts) {
  plug(3);
  bus.write(Space::Port, 0xcf8, 4, 0x8000'0000 | 3 << 11);
  EXPECT_EQ(bus.read(Space::Port, 0xcf8, 4), 0x8000'0000u | 3 << 11);
  EXPECT_EQ(bus.read(Space::Port, 0xcfc, 4), 0x10ff'1af4u);
  EXPECT_EQ(bus.read(Space::Port, 0xcfe, 2), 0x10ffu);
  EXPECT_EQ(bus.read(Space::Port, 0xcfd, 1), 0x1au);
  // An absent function, and the enable bit off: ones.
  bus.write(Space::Port, 0xcf8, 4, 0x8000'0000 | 4 << 11);
  EXPECT_EQ(bus.read(Space::Port, 0xcfc, 4), 0xffff'ffffu);
  bus.write(Space::Port, 0xcf8, 4, 3 << 11);
  EXPECT_EQ(bus.read(Space::Port, 0xcfc, 4), 0xffff'ffffu);
}

TEST_F(PciTest, OnlyDwordsReachConfigAddress) {
  bus.write(Space::Port, 0xcf8, 4, 0x8000'0000);
  bus.write(Space::Port, 0xcfb, 1, 1);  // Linux's test for mechanism 1 does this
  bus.write(Space::Port, 0xcf8, 2, 0x1234);
  EXPECT_EQ(bus.read(Space::Port, 0xcf8, 4), 0x8000'0000u);
  EXPECT_EQ(bus.read(Space::Port, 0xcf8, 1), 0xffu);
}

TEST_F(PciTest, EcamReadsOnlyFunctionZeroOfBusZero) {
  plug(1);
  EXPECT_EQ(config(0, vendor_id, 4), 0x0008'1b36u);
  EXPECT_EQ(config(0, 0x08, 4) >> 8, 0x060000u);
  EXPECT_EQ(config(1, 0x08, 4), 0xff01'0200u);
  EXPECT_EQ(config(1, vendor_id, 8) & 0xffff'ffff, 0x10ff'1af4u);
  EXPECT_EQ(config(2, vendor_id, 2), 0xffffu);
  EXPECT_EQ(bus.read(Space::Memory, layout.ecam_base + (1 << 15) + (1 << 12), 4), 0xffff'ffffu);  // function 1
  EXPECT_EQ(config(1, 0x100, 4), 0xffff'ffffu);  // no extended configuration space
  set_config(1, vendor_id, 4, 0);
  EXPECT_EQ(config(1, vendor_id, 4), 0x10ff'1af4u);
}

TEST_F(PciTest, WritableBitsAndNoOthers) {
  plug(1);
  set_config(1, command, 2, 0xffff);
  EXPECT_EQ(config(1, command, 2), 0x0546u);
  set_config(1, interrupt_line, 1, 0x5a);
  EXPECT_EQ(config(1, interrupt_line, 2), 0x015au);
  set_config(1, 0x3, 4, 0xffff'ffff);  // unaligned: the end of the device id and the command register
  EXPECT_EQ(config(1, device_id, 2), 0x10ffu);
  EXPECT_EQ(config(1, status, 2), 0u);
}

TEST_F(PciTest, BarsArePlacedAtResetButNotDecoded) {
  TestFunction& a = plug(1);
  TestFunction& b = plug(2, 0x1000, 0x10'0000);
  EXPECT_NE(a.bar_address(0), 0u);
  EXPECT_EQ(b.bar_address(2) % 0x10'0000, 0u);
  EXPECT_GE(b.bar_address(2), layout.mmio32_base);
  EXPECT_EQ(memory(a.bar_address(0)), 0xffffu);
  set_config(1, command, 2, command_memory);
  EXPECT_EQ(memory(a.bar_address(0) + 4), 0x0004u);
  EXPECT_EQ(memory(a.bar_address(2) + 5), 0x0205u);
  EXPECT_EQ(memory(b.bar_address(2)), 0xffffu);
  set_config(1, command, 2, 0);
  EXPECT_EQ(memory(a.bar_address(0)), 0xffffu);
  const uint64_t before = a.bar_address(2);
  set_config(1, base_address + 8, 8, layout.mmio32_base + 0x1000'0000);
  EXPECT_NE(a.bar_address(2), before);
  a.reset();
  EXPECT_EQ(a.bar_address(2), before);
}

TEST_F(PciTest, BarsAreSizedByWritingOnes) {
  TestFunction& device = plug(1, 0x1000, 0x4000);
  const uint64_t before = device.bar_address(0);
  set_config(1, command, 2, command_memory);  // even with decode on
  set_config(1, base_address, 4, 0xffff'ffff);
  EXPECT_EQ(config(1, base_address, 4), 0xffff'f000u);
  EXPECT_EQ(memory(before), 0xffffu);
  set_config(1, base_address, 4, before);
  EXPECT_EQ(memory(before), 0u);
  set_config(1, base_address + 8, 4, 0xffff'ffff);
  set_config(1, base_address + 12, 4, 0xffff'ffff);
  EXPECT_EQ(config(1, base_address + 8, 4), 0xffff'c00cu);  // 64 bits, prefetchable
  EXPECT_EQ(config(1, base_address + 12, 4), 0xffff'ffffu);
  set_config(1, base_address + 4, 4, 0xffff'ffff);  // no such BAR
  EXPECT_EQ(config(1, base_address + 4, 4), 0u);
}

TEST_F(PciTest, PortsHaveBarsOfTheirOwn) {
  auto owned = std::make_unique<TestFunction>();
  TestFunction& device = *owned;
  device.add_ports();
  bridge.plug(std::move(owned), 1);
  const auto port = [&](uint64_t address) { return bus.read(Space::Port, address, 1); };
  const uint64_t before = device.bar_address(1);
  EXPECT_EQ(before, layout.io_first);
  EXPECT_EQ(config(1, base_address + 4, 4), before | 1);
  set_config(1, command, 2, command_memory);
  EXPECT_EQ(port(before + 5), 0xffu);
  set_config(1, command, 2, command_io);
  EXPECT_EQ(port(before + 5), 5u);
  EXPECT_EQ(memory(device.bar_address(0)), 0xffffu);
  set_config(1, base_address + 4, 4, 0xffff'ffff);
  EXPECT_EQ(config(1, base_address + 4, 4), 0xffff'ffc1u);
  EXPECT_EQ(port(before + 5), 0xffu);
  set_config(1, base_address + 4, 4, 0x80);  // where the chipset is
  EXPECT_EQ(port(0x85), 0xffu);
  set_config(1, base_address + 4, 4, 0x1040);
  EXPECT_EQ(port(0x1045), 5u);
  EXPECT_EQ(port(0x1080), 0xffu);
}

TEST_F(PciTest, AMovedBarIsDecodedAtItsNewPlaceOnly) {
  TestFunction& device = plug(1);
  set_config(1, command, 2, command_memory);
  const uint64_t before = device.bar_address(0);
  const uint64_t after = layout.mmio32_base + 0x0800'0000;
  set_config(1, base_address, 4, after);
  EXPECT_EQ(memory(before), 0xffffu);
  EXPECT_EQ(memory(after + 6), 6u);
}

TEST_F(PciTest, AnImpossiblePlaceIsNotDecodedAndDisturbsNothing) {
  TestFunction& a = plug(1);
  TestFunction& b = plug(2);
  set_config(1, command, 2, command_memory);
  set_config(2, command, 2, command_memory);
  const uint64_t own = a.bar_address(0);
  const uint64_t others = b.bar_address(2);
  for (const uint64_t place : {others, others + 0x1000, uint64_t{0}, uint64_t{0x1000}, uint64_t{0xfee0'0000},
                               layout.ecam_base, layout.mmio32_base + layout.mmio32_size}) {
    set_config(1, base_address, 4, place);
    EXPECT_EQ(memory(own), 0xffffu) << std::hex << place;
    EXPECT_EQ(memory(others + 0x1002), 0x0202u) << std::hex << place;
    EXPECT_EQ(config(1, vendor_id, 2), 0x1af4u) << std::hex << place;
    set_config(1, base_address, 4, own);
    EXPECT_EQ(memory(own), 0u) << std::hex << place;
  }
  // Once the other leaves, the place is free.
  set_config(1, base_address, 4, others);
  set_config(2, command, 2, 0);
  EXPECT_EQ(memory(others + 2), 0x0002u);
}

TEST_F(PciTest, AFunctionThatLeavesLeavesNothingBehind) {
  plug(1);
  TestFunction& device = plug(2);
  EXPECT_EQ(bridge.occupied(), 0x6u);
  EXPECT_EQ(bridge.unplug(3), nullptr);
  EXPECT_EQ(bridge.unplug(0), nullptr);
  set_config(2, command, 2, command_memory);
  const uint64_t at = device.bar_address(0), large = device.bar_address(2);
  EXPECT_EQ(memory(at + 4), 4u);
  device.pull(true);
  auto& line = lines[intx_gsi(2, 0) - first_intx_gsi];
  EXPECT_TRUE(line.level());
  const auto taken = bridge.unplug(2);
  ASSERT_EQ(taken.get(), &device);
  EXPECT_FALSE(line.level());
  EXPECT_EQ(memory(at), 0xffffu);
  EXPECT_EQ(memory(large), 0xffffu);
  EXPECT_EQ(config(2, vendor_id, 2), 0xffffu);
  EXPECT_EQ(bridge.occupied(), 0x2u);
  device.pull(false);  // what it does now reaches nobody
  device.reset();
  // Its place is the next one's, so that coming and going does not use the window up.
  const TestFunction& next = plug(2);
  EXPECT_EQ(next.bar_address(0), at);
  EXPECT_EQ(next.bar_address(2), large);
}

TEST_F(PciTest, BarsOfFunctionsThatComeAndGoNeverOverlap) {
  plug(1, 0x1000, 0x10'0000);
  for (unsigned round = 0; round < 2000; ++round) {
    const unsigned slot = 2 + round * 7 % 5;
    (void)bridge.unplug(slot);
    plug(slot, 0x1000u << round % 3, 0x4000u << round % 7);
    std::vector<std::pair<uint64_t, uint64_t>> places;
    for (PciDevice* function : bridge.functions()) {
      for (unsigned bar = 0; bar < bar_count; ++bar) {
        if (function->bars()[bar].size == 0) continue;
        ASSERT_NE(function->bar_address(bar), 0u);
        places.emplace_back(function->bar_address(bar), function->bars()[bar].size);
      }
    }
    std::ranges::sort(places);
    for (size_t i = 1; i < places.size(); ++i) {
      ASSERT_LE(places[i - 1].first + places[i - 1].second, places[i].first) << round;
    }
  }
}

TEST_F(PciTest, SixtyFourBitWindowTakesWideBars) {
  Layout wide;
  wide.mmio64_base = 0x80'0000'0000;
  wide.mmio64_size = 0x1000'0000;
  Bus other;
  HostBridge root{other, wide, [this](unsigned gsi) -> InterruptLine& { return lines[gsi - first_intx_gsi]; }};
  auto device = std::make_unique<TestFunction>();
  TestFunction& function = *device;
  root.plug(std::move(device));
  EXPECT_EQ(function.bar_address(2), wide.mmio64_base);
  EXPECT_EQ(function.bar_address(0), wide.mmio32_base);
  other.write(Space::Memory, wide.ecam_base + (1 << 15) + command, 2, command_memory);
  EXPECT_EQ(other.read(Space::Memory, wide.mmio64_base + 9, 2), 0x0209u);
}

TEST_F(PciTest, PinsShareWiresAsWiredOr) {
  TestFunction& a = plug(1);
  TestFunction& b = plug(9);
  ASSERT_EQ(intx_gsi(1, 0), intx_gsi(9, 0));
  ASSERT_NE(intx_gsi(1, 0), intx_gsi(2, 0));
  test_support::RecordingLine& line = lines[intx_gsi(1, 0) - first_intx_gsi];
  a.pull(true);
  b.pull(true);
  EXPECT_TRUE(line.level());
  EXPECT_EQ(config(1, status, 2) & status_interrupt, status_interrupt);
  a.pull(false);
  EXPECT_TRUE(line.level());
  set_config(9, command, 2, command_intx_disable);
  EXPECT_FALSE(line.level());
  EXPECT_EQ(config(9, status, 2) & status_interrupt, status_interrupt);
  set_config(9, command, 2, 0);
  EXPECT_TRUE(line.level());
  b.reset();
  EXPECT_FALSE(line.level());
}

TEST_F(PciTest, BridgeAndFunctionsRoundTrip) {
  TestFunction& device = plug(1);
  bus.write(Space::Port, 0xcf8, 4, 0x8000'0804);
  const auto changed = [](HostBridge::State& state) {
    state = {};
    state.config_address = 0x8000'1000;
    const fields::Buffer saved = [&] {
      Bus scratch;
      test_support::RecordingLine line;
      HostBridge fresh(scratch, {}, [&](unsigned) -> InterruptLine& { return line; });
      fields::Buffer out;
      fresh.save(out);
      return out;
    }();
    const uint32_t address = state.config_address;
    ASSERT_TRUE(fields::restore(state, saved));
    state.config_address = address;
    state.config.bytes[interrupt_line] = 7;
  };
  test_support::expect_round_trip(bridge, std::function<void(HostBridge::State&)>{changed});
  EXPECT_EQ(bus.read(Space::Port, 0xcf8, 4), 0x8000'0804u);

  // A restored function is decoded where its registers say.
  set_config(1, command, 2, command_memory);
  const uint64_t address = device.bar_address(0);
  const fields::Buffer on = test_support::saved(device);
  device.reset();
  EXPECT_EQ(memory(address), 0xffffu);
  ASSERT_TRUE(device.restore(on));
  EXPECT_EQ(memory(address), 0u);
  // A state of another device is refused.
  ConfigSpace::State other;
  ASSERT_TRUE(fields::restore(other, on));
  other.bytes[device_id] ^= 1;
  fields::Buffer foreign;
  fields::save(other, foreign);
  EXPECT_FALSE(device.restore(foreign));
}

TEST(Q35Bridge, TheWindowFollowsPciexbarAndWinsOverBars) {
  Bus bus;
  test_support::RecordingLine line;
  const Layout layout{.ecam_base = 0xb000'0000, .mmio32_base = 0x8000'0000, .mmio32_size = 0x7ec0'0000};
  HostBridge bridge(
      bus, layout, [&](unsigned) -> InterruptLine& { return line; }, HostBridge::Kind::Q35);
  auto owned = std::make_unique<TestFunction>();
  const TestFunction& function = *owned;
  bridge.plug(std::move(owned), 3);
  const auto ports = [&](unsigned slot, unsigned offset, uint32_t value) {
    bus.write(Space::Port, 0xcf8, 4, 0x8000'0000 | slot << 11 | offset);
    bus.write(Space::Port, 0xcfc, 4, value);
  };
  EXPECT_EQ(function.bar_address(0), 0u);  // firmware's to place
  EXPECT_EQ(bus.read(Space::Memory, 0xb000'0000, 4), 0xffff'ffffu);
  ports(0, 0x60, 0xb000'0001);
  EXPECT_EQ(bus.read(Space::Memory, 0xb000'0000, 4), 0x29c0'8086u);
  EXPECT_EQ(bus.read(Space::Memory, 0xb000'0000 + (3 << 15), 4), 0x10ff'1af4u);
  EXPECT_EQ(bridge.layout().ecam_buses, 256u);
  ports(3, base_address, 0xc000'0000);
  ports(3, command, command_memory);
  EXPECT_EQ(bus.read(Space::Memory, 0xc000'0006, 2), 6u);
  ports(0, 0x60, 0xc000'0001);  // over the BAR
  EXPECT_EQ(bus.read(Space::Memory, 0xc000'0000, 4), 0x29c0'8086u);
  EXPECT_EQ(bus.read(Space::Memory, 0xb000'0000, 4), 0xffff'ffffu);
  ports(0, 0x60, 0x1);  // at 0 there is RAM
  EXPECT_EQ(bridge.layout().ecam_buses, 0u);
  EXPECT_EQ(bus.read(Space::Memory, 0xc000'0006, 2), 6u);
}

// --- MSI-X ---

class MsixTest : public testing::Test {
 protected:
  void control(uint16_t value) {
    config.write(at + 2, 2, value);
    msix.update();
  }
  test_support::RecordingMsi sink;
  ConfigSpace config{{.vendor = 1}};
  const unsigned at = 0x40;
  Msix msix{sink, config, 3, 1};
};

TEST_F(MsixTest, CapabilityNamesTableAndPba) {
  EXPECT_EQ(config.read(capabilities_pointer, 1), at);
  EXPECT_EQ(config.read(status, 2) & status_capabilities, status_capabilities);
  EXPECT_EQ(config.read(at, 4), 0x0002'0011u);
  EXPECT_EQ(config.read(at + 4, 4), 1u);
  EXPECT_EQ(config.read(at + 8, 4), 0x801u);
  config.write(at + 2, 2, 0xffff);
  EXPECT_EQ(config.read(at + 2, 2), 0xc002u);
}

TEST_F(MsixTest, MasksKeepMessagesPending) {
  config.write(command, 2, command_bus_master);
  msix.write(16, 8, 0xfee0'1000);
  msix.write(24, 4, 0x55);
  msix.notify(1);
  EXPECT_TRUE(sink.messages.empty());  // disabled: nothing, not even pending
  EXPECT_EQ(msix.read(Msix::pba_offset, 8), 0u);
  control(0x8000);
  msix.notify(1);
  EXPECT_TRUE(sink.messages.empty());
  EXPECT_EQ(msix.read(Msix::pba_offset, 8), 2u);
  EXPECT_EQ(msix.read(Msix::pba_offset, 1), 2u);
  EXPECT_EQ(msix.read(Msix::pba_offset + 1, 2), 0u);
  msix.write(28, 4, 0);  // unmask
  ASSERT_EQ(sink.messages.size(), 1u);
  EXPECT_EQ(sink.messages[0], (test_support::RecordingMsi::Message{0xfee0'1000, 0x55}));
  EXPECT_EQ(msix.read(Msix::pba_offset, 8), 0u);
  control(0xc000);  // function mask
  msix.notify(1);
  EXPECT_EQ(sink.messages.size(), 1u);
  control(0x8000);
  EXPECT_EQ(sink.messages.size(), 2u);
  config.write(command, 2, 0);  // no bus mastering, no memory write
  msix.notify(1);
  EXPECT_EQ(sink.messages.size(), 2u);
  msix.notify(3);  // no such vector
  EXPECT_EQ(msix.read(Msix::pba_offset, 8), 2u);
}

TEST_F(MsixTest, OddAndOversizedAccesses) {
  msix.write(0, 8, 0x1122'3344'5566'7788);
  EXPECT_EQ(msix.read(0, 8), 0x1122'3344'5566'7788u);
  EXPECT_EQ(msix.read(3, 2), 0x4455u);
  msix.write(9, 1, 0xab);
  EXPECT_EQ(msix.read(8, 4), 0xab00u);
  msix.write(0, 1, 0xff);
  EXPECT_EQ(msix.read(0, 1), 0xfcu);  // the low address bits are zero
  msix.write(12, 4, 0xffff'ffff);
  EXPECT_EQ(msix.read(12, 4), 1u);
  msix.write(3 * 16 - 4, 8, ~0ull);  // over the end of the table
  EXPECT_EQ(msix.read(3 * 16 - 4, 8), 1u);
  msix.write(Msix::pba_offset, 8, ~0ull);
  EXPECT_EQ(msix.read(Msix::pba_offset, 8), 0u);
  EXPECT_EQ(msix.read(Msix::bar_size - 4, 8), 0u);
}

TEST_F(MsixTest, RestoreRefusesWhatCannotBe) {
  Msix::State state = msix.state();
  state.pending = 8;
  EXPECT_FALSE(msix.restore(state));
  state = msix.state();
  state.table[0].control = 2;
  EXPECT_FALSE(msix.restore(state));
  state = msix.state();
  state.table[0].address_low = 0xfee0'0000;
  state.pending = 1;
  ASSERT_TRUE(msix.restore(state));
  EXPECT_EQ(msix.read(0, 4), 0xfee0'0000u);
}

}  // namespace
}  // namespace caisson::pci
