#include "devices/virtio/virtio_pci.h"

#include <gtest/gtest.h>

#include "devices/virtio/fake_backends.h"
#include "devices/virtio/test_machine.h"

namespace caisson::virtio {
namespace {

using namespace status;

constexpr unsigned disk_slot = 1;
constexpr unsigned console_slot = 2;

class VirtioPciTest : public testing::Test {
 protected:
  VirtioPciTest() {
    add_blk(machine.bridge, machine.services, disk, {.queues = 2});
    console = &add_console(machine.bridge, machine.services, terminal);
  }
  FakeDisk disk{1 << 20};  // backends outlive the bridge
  FakeConsole terminal;
  TestMachine machine;
  Console* console;
};

TEST_F(VirtioPciTest, IdentityAndCapabilities) {
  EXPECT_EQ(machine.config(disk_slot, pci::vendor_id, 4), 0x1042'1af4u);
  EXPECT_GE(machine.config(disk_slot, pci::revision_id, 1), 1u);
  unsigned types = 0;
  unsigned offset = static_cast<unsigned>(machine.config(disk_slot, pci::capabilities_pointer, 1));
  while (offset != 0) {
    if (machine.config(disk_slot, offset, 1) == 0x09) {
      types |= 1u << machine.config(disk_slot, offset + 3, 1);
      EXPECT_GE(machine.config(disk_slot, offset + 2, 1), 16u);
      if (machine.config(disk_slot, offset + 3, 1) == 1) {
        EXPECT_EQ(machine.config(disk_slot, offset + 4, 1), unsigned{VirtioPci::register_bar});
        EXPECT_EQ(machine.config(disk_slot, offset + 12, 4), 56u);
      }
    }
    offset = static_cast<unsigned>(machine.config(disk_slot, offset + 1, 1));
  }
  EXPECT_EQ(types, 0b111110u);
}

TEST_F(VirtioPciTest, FeaturesAreReadAndWrittenInHalves) {
  TestDriver driver(machine, disk_slot);
  EXPECT_EQ(
      driver.offered() & (feature::version_1 | feature::event_idx | feature::indirect_desc | feature::ring_packed),
      feature::version_1 | feature::event_idx | feature::indirect_desc | feature::ring_packed);
  driver.set_common(Common::DeviceFeatureSelect, 4, 2);
  EXPECT_EQ(driver.common(Common::DeviceFeature, 4), 0u);
  driver.accept(0x1'2345'6789);
  driver.set_common(Common::DriverFeatureSelect, 4, 0);
  EXPECT_EQ(driver.common(Common::DriverFeature, 4), 0x2345'6789u);
  driver.set_common(Common::DriverFeatureSelect, 4, 1);
  EXPECT_EQ(driver.common(Common::DriverFeature, 4), 1u);
  driver.set_common(Common::DriverFeatureSelect, 4, 7);
  driver.set_common(Common::DriverFeature, 4, ~0u);
  EXPECT_EQ(driver.common(Common::DriverFeature, 4), 0u);
}

TEST_F(VirtioPciTest, StatusBitsComeInOrder) {
  TestDriver driver(machine, disk_slot);
  driver.set_status(driver_ok);
  EXPECT_EQ(driver.status(), 0);
  driver.set_status(status::driver);
  EXPECT_EQ(driver.status(), 0);
  driver.set_status(acknowledge);
  driver.set_status(acknowledge | features_ok);
  EXPECT_EQ(driver.status(), acknowledge);
  driver.set_status(acknowledge | status::driver);
  driver.set_status(acknowledge | status::driver | driver_ok);  // without FEATURES_OK
  EXPECT_EQ(driver.status(), acknowledge | status::driver);
  driver.accept(feature::version_1);
  driver.set_status(acknowledge | status::driver | features_ok);
  EXPECT_EQ(driver.status(), acknowledge | status::driver | features_ok);
  driver.set_status(acknowledge);  // bits are not taken back
  EXPECT_EQ(driver.status(), acknowledge | status::driver | features_ok);
  driver.accept(0);  // settled
  driver.set_common(Common::DriverFeatureSelect, 4, 1);
  EXPECT_EQ(driver.common(Common::DriverFeature, 4), 1u);
  driver.set_status(0xff);
  EXPECT_EQ(driver.status() & needs_reset, 0);
  driver.set_status(0);
  EXPECT_EQ(driver.status(), 0);
}

TEST_F(VirtioPciTest, FeaturesOkNeedsVersionOneAndNothingUnknown) {
  TestDriver driver(machine, disk_slot);
  for (const uint64_t features :
       std::array<uint64_t, 3>{0, feature::version_1 | 1ull << 63, feature::version_1 | 1ull << 24}) {
    driver.set_status(0);
    driver.set_status(acknowledge | status::driver);
    driver.accept(features);
    driver.set_status(acknowledge | status::driver | features_ok);
    EXPECT_EQ(driver.status(), acknowledge | status::driver) << std::hex << features;
  }
}

TEST_F(VirtioPciTest, QueueRegistersAreBounded) {
  TestDriver driver(machine, disk_slot);
  EXPECT_EQ(driver.common(Common::NumQueues, 2), 2u);
  driver.set_common(Common::QueueSelect, 2, 1);
  EXPECT_EQ(driver.common(Common::QueueSize, 2), 256u);
  EXPECT_EQ(driver.common(Common::QueueNotifyOff, 2), 1u);
  driver.set_common(Common::QueueSize, 2, 512);
  driver.set_common(Common::QueueSize, 2, 0);
  EXPECT_EQ(driver.common(Common::QueueSize, 2), 256u);
  driver.set_common(Common::QueueMsixVector, 2, 99);
  EXPECT_EQ(driver.common(Common::QueueMsixVector, 2), no_vector);
  driver.set_common(Common::QueueMsixVector, 2, 2);
  EXPECT_EQ(driver.common(Common::QueueMsixVector, 2), 2u);
  driver.set_common(Common::ConfigMsixVector, 2, 3);
  EXPECT_EQ(driver.common(Common::ConfigMsixVector, 2), no_vector);
  for (const unsigned select : {2u, 16u, 0xffffu}) {
    driver.set_common(Common::QueueSelect, 2, select);
    EXPECT_EQ(driver.common(Common::QueueSize, 2), 0u);
    driver.set_common(Common::QueueSize, 2, 16);
    driver.set_common(Common::QueueDesc, 8, ~0ull);
    driver.set_common(Common::QueueEnable, 2, 1);
    EXPECT_EQ(driver.common(Common::QueueEnable, 2), 0u);
    EXPECT_EQ(driver.common(Common::QueueDesc, 8), 0u);
  }
}

TEST_F(VirtioPciTest, AccessesOfOtherWidths) {
  TestDriver driver(machine, disk_slot);
  driver.set_common(Common::QueueDesc, 8, 0x1122'3344'5566'7788);
  EXPECT_EQ(driver.common(Common::QueueDesc, 8), 0x1122'3344'5566'7788u);
  EXPECT_EQ(driver.read(0x23, 2), 0x4455u);
  driver.write(0x24, 4, 0xaabb'ccdd);
  EXPECT_EQ(driver.common(Common::QueueDesc, 8), 0xaabb'ccdd'5566'7788u);
  driver.write(0x22, 4, 0);  // across both halves: no effect
  driver.write(0x20, 2, 0);
  EXPECT_EQ(driver.common(Common::QueueDesc, 8), 0xaabb'ccdd'5566'7788u);
  driver.write(0x14, 4, 1);  // the status is one byte
  EXPECT_EQ(driver.status(), 0);
  EXPECT_EQ(driver.read(0x38, 8), 0u);
  EXPECT_EQ(driver.read(0x36, 8) >> 16, 0u);
}

TEST_F(VirtioPciTest, EnabledQueuesDoNotChange) {
  TestDriver driver(machine, disk_slot);
  driver.start(0, 1);
  EXPECT_EQ(driver.status() & needs_reset, 0);
  driver.set_common(Common::QueueSelect, 2, 0);
  driver.set_common(Common::QueueDesc, 8, 0);
  driver.set_common(Common::QueueEnable, 2, 0);
  driver.set_common(Common::QueueSize, 2, 2);
  EXPECT_EQ(driver.common(Common::QueueDesc, 8), TestDriver::queue_base(0));
  EXPECT_EQ(driver.common(Common::QueueEnable, 2), 1u);
  EXPECT_EQ(driver.common(Common::QueueSize, 2), 16u);
}

TEST_F(VirtioPciTest, ABadQueueNeedsAResetAndAResetHelps) {
  TestDriver driver(machine, disk_slot);
  driver.enable_msix();
  driver.set_up(0, 1);
  driver.set_common(Common::QueueSelect, 2, 1);
  driver.set_common(Common::QueueDesc, 8, 0xfee0'0000);
  driver.set_common(Common::QueueEnable, 2, 1);
  driver.set_status(acknowledge | status::driver | features_ok | driver_ok);
  EXPECT_EQ(driver.status() & needs_reset, needs_reset);
  ASSERT_EQ(machine.msi.messages.size(), 1u);
  EXPECT_EQ(machine.msi.messages[0].data, 0x40u);  // configuration change
  driver.kick(0);
  driver.start(0, 1);
  EXPECT_EQ(driver.status() & needs_reset, 0);
}

TEST_F(VirtioPciTest, ABrokenRingNeedsAReset) {
  TestDriver driver(machine, disk_slot);
  driver.start(feature::event_idx, 1);
  driver.queues[0].put<uint16_t>(driver.queues[0].driver + 2, 1000);
  driver.kick(0);
  EXPECT_EQ(driver.status() & needs_reset, needs_reset);
  EXPECT_EQ(machine.device(disk_slot).failures(), 1u);
  driver.kick(0);
  driver.kick(1);
  driver.write(VirtioPci::notify_offset + 0xffc, 4, 0);  // no such queue
  EXPECT_EQ(machine.device(disk_slot).failures(), 1u);
}

TEST_F(VirtioPciTest, IntxFollowsTheIsr) {
  TestDriver driver(machine, console_slot);
  driver.start(0, 2);
  const unsigned wire = pci::intx_gsi(console_slot, 0) - pci::first_intx_gsi;
  driver.queues[1].add({{0x50'0000, 4}});
  driver.kick(1);
  EXPECT_TRUE(machine.lines[wire].level());
  console->set_size(100, 40);
  EXPECT_EQ(driver.read(VirtioPci::isr_offset, 1), 3u);
  EXPECT_FALSE(machine.lines[wire].level());
  EXPECT_EQ(driver.read(VirtioPci::isr_offset, 1), 0u);
  EXPECT_TRUE(machine.msi.messages.empty());
}

TEST_F(VirtioPciTest, ConfigurationChangesCountAndInterrupt) {
  TestDriver driver(machine, console_slot);
  driver.enable_msix();
  driver.start(Console::size, 2);
  const uint64_t before = driver.common(Common::ConfigGeneration, 1);
  EXPECT_EQ(driver.device_config(0, 4), 25u << 16 | 80);
  console->set_size(100, 40);
  EXPECT_EQ(driver.device_config(0, 4), 40u << 16 | 100);
  EXPECT_EQ(driver.common(Common::ConfigGeneration, 1), before + 1);
  ASSERT_EQ(machine.msi.messages.size(), 1u);
  EXPECT_EQ(machine.msi.messages[0].data, 0x40u);
  console->set_size(100, 40);
  EXPECT_EQ(machine.msi.messages.size(), 1u);
}

TEST_F(VirtioPciTest, ChainsWaitForBusMastering) {
  TestDriver driver(machine, console_slot);
  driver.start(0, 2);
  machine.set_config(console_slot, pci::command, 2, pci::command_memory);
  const std::string_view text = "late";
  driver.queues[1].put_bytes(0x50'0000, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  driver.queues[1].add({{0x50'0000, 4}});
  driver.kick(1);
  EXPECT_EQ(terminal.written, "");
  machine.set_config(console_slot, pci::command, 2, pci::command_memory | pci::command_bus_master);
  EXPECT_EQ(terminal.written, "late");
}

TEST_F(VirtioPciTest, ChainsAddedBeforeDriverOkAreServed) {
  TestDriver driver(machine, console_slot);
  driver.set_up(0, 2);
  driver.queues[1].add({{0x50'0000, 4}});
  driver.kick(1);
  EXPECT_EQ(terminal.written.size(), 0u);
  driver.set_status(acknowledge | status::driver | features_ok | driver_ok);
  EXPECT_EQ(terminal.written.size(), 4u);
}

TEST_F(VirtioPciTest, RegistersByTheConfigurationAccessCapability) {
  TestDriver driver(machine, console_slot);
  unsigned window = static_cast<unsigned>(machine.config(console_slot, pci::capabilities_pointer, 1));
  while (machine.config(console_slot, window, 1) != 9 || machine.config(console_slot, window + 3, 1) != 5) {
    window = static_cast<unsigned>(machine.config(console_slot, window + 1, 1));
    ASSERT_NE(window, 0u);
  }
  const auto aim = [&](unsigned bar, uint32_t offset, uint32_t length) {
    machine.set_config(console_slot, window + 4, 1, bar);
    machine.set_config(console_slot, window + 8, 4, offset);
    machine.set_config(console_slot, window + 12, 4, length);
  };
  aim(VirtioPci::register_bar, 0x12, 2);
  EXPECT_EQ(machine.config(console_slot, window + 16, 2), 2u);  // num_queues
  aim(VirtioPci::register_bar, 0x14, 1);
  machine.set_config(console_slot, window + 16, 1, acknowledge);
  EXPECT_EQ(driver.status(), acknowledge);
  // Not allowed: nothing happens.
  for (const auto& [bar, offset, length] : std::vector<std::array<uint32_t, 3>>{
           {7, 0x14, 1}, {2, 0x14, 3}, {2, 0x14, 0}, {2, 0x15, 2}, {2, 0x4000, 1}, {2, 0xffff'fffc, 4}, {1, 0, 4}}) {
    aim(bar, offset, length);
    machine.set_config(console_slot, window + 16, 4, 0);
    EXPECT_EQ(machine.config(console_slot, window + 16, 4), 0u);
    EXPECT_EQ(driver.status(), acknowledge);
  }
}

TEST_F(VirtioPciTest, PowerOnResetForgetsAll) {
  TestDriver driver(machine, disk_slot);
  driver.enable_msix();
  driver.start(0, 1);
  const fields::Buffer fresh = [] {
    FakeDisk same{1 << 20};
    TestMachine other;
    add_blk(other.bridge, other.services, same, {.queues = 2});
    return test_support::saved(other.device(disk_slot));
  }();
  for (pci::PciDevice* function : machine.bridge.functions()) function->reset();
  EXPECT_EQ(test_support::saved(machine.device(disk_slot)), fresh);
}

TEST_F(VirtioPciTest, RoundTrip) {
  TestDriver driver(machine, disk_slot);
  driver.enable_msix();
  driver.start(feature::event_idx | Blk::flush, 2);
  VirtioPci& device = machine.device(disk_slot);
  VirtioPci::State before{};
  ASSERT_TRUE(fields::restore(before, test_support::saved(device)));
  const std::function<void(VirtioPci::State&)> repair = [&](VirtioPci::State& state) {
    // Another valid state: bytes that a guest can write, and a packed ring somewhere in its middle.
    state.config = before.config;
    state.config.bytes[pci::interrupt_line] ^= 1;
    for (auto& entry : state.msix.table) entry.address_low &= ~3u;
    state.driver_features = feature::version_1 | feature::ring_packed;
    state.status = before.status;
    state.isr = 0;
    state.config_vector = 1;
    state.queues = before.queues;
    for (unsigned i = 0; i < 2; ++i) {
      state.queues[i].vector = 1;
      state.queues[i].size = 15;
      state.queues[i].next_available = 3;
      state.queues[i].next_used = 9;
      state.queues[i].available_wrap = false;
      state.queues[i].unsignalled = 4;
    }
    fields::Buffer model;
    fields::save(Blk::State{.write_back = false}, model);
    state.model.data = model;
  };
  test_support::expect_round_trip(device, repair);
  EXPECT_GT(machine.run_posted(), 0u);  // queues are looked at again after a restore
}

TEST_F(VirtioPciTest, RestoreRefusesWhatCannotBe) {
  TestDriver driver(machine, disk_slot);
  driver.start(feature::ring_packed, 2);
  VirtioPci& device = machine.device(disk_slot);
  const fields::Buffer good = test_support::saved(device);
  const auto refused = [&](auto change) {
    VirtioPci::State state{};
    EXPECT_TRUE(fields::restore(state, good));
    change(state);
    fields::Buffer out;
    fields::save(state, out);
    const bool refusal = !device.restore(out).has_value();
    EXPECT_EQ(test_support::saved(device), good);
    return refusal;
  };
  EXPECT_TRUE(refused([](auto& s) { s.driver_features |= 1ull << 60; }));
  EXPECT_TRUE(refused([](auto& s) { s.status &= ~features_ok; }));
  EXPECT_TRUE(refused([](auto& s) { s.config_vector = 3; }));
  EXPECT_TRUE(refused([](auto& s) { s.queues[0].descriptors = ~0ull; }));
  EXPECT_TRUE(refused([](auto& s) { s.queues[0].next_available = 200; }));
  EXPECT_TRUE(refused([](auto& s) { s.queues[1].size = 257; }));
  EXPECT_TRUE(refused([](auto& s) { s.queues[2].size = 1; }));
  EXPECT_TRUE(refused([](auto& s) { s.queues[1].vector = 3; }));
  EXPECT_TRUE(refused([](auto& s) { s.model.data.push_back(1); }));
  EXPECT_TRUE(refused([](auto& s) { s.msix.pending = 8; }));
  EXPECT_TRUE(refused([](auto& s) { s.config.bytes[pci::device_id] ^= 1; }));
  EXPECT_FALSE(refused([](auto&) {}));
}

}  // namespace
}  // namespace caisson::virtio
