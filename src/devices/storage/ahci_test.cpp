#include "devices/storage/ahci.h"

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "devices/device_test_support.h"
#include "devices/pci/host_bridge.h"
#include "devices/storage/ahci_registers.h"
#include "devices/storage/ata_disk.h"
#include "devices/storage/cdrom.h"
#include "devices/virtio/fake_backends.h"

namespace caisson::storage {
namespace {

using virtio::FakeDisk;

// A controller with a disk at port 0 and a CD-ROM drive at port 1, its lists and tables in guest memory.
class AhciTest : public testing::Test {
 protected:
  static constexpr uint64_t bar = 0xc010'0000;
  static constexpr Gpa list = 0x10000, received = 0x20000, tables = 0x30000, data = 0x100000;

  void SetUp() override {
    auto owned = std::make_unique<Ahci>(*memory);
    ahci = owned.get();
    ahci->connect(0, std::make_unique<AtaDisk>(disk, "serial"), &disk);
    ahci->connect(1, std::make_unique<Cdrom>(&disc), &disc);
    slot = bridge.plug(std::move(owned));
    config(pci::base_address + 4 * Ahci::register_bar, bar);
    config(pci::command, pci::command_memory | pci::command_bus_master);
    for (size_t i = 0; i < disk.contents.size(); ++i) disk.contents[i] = static_cast<uint8_t>(i / 512 + i);
    for (size_t i = 0; i < disc.contents.size(); ++i) disc.contents[i] = static_cast<uint8_t>(i / 2048 * 7 + i);
    write(4, ghc_interrupt_enable);
    start(0);
    start(1);
  }
  void config(unsigned offset, uint32_t value) {
    bus.write(Space::Memory, layout.ecam_base + (slot << 15) + offset, 4, value);
  }
  uint32_t read(uint64_t offset) { return static_cast<uint32_t>(bus.read(Space::Memory, bar + offset, 4)); }
  void write(uint64_t offset, uint32_t value) { bus.write(Space::Memory, bar + offset, 4, value); }
  static uint64_t at(unsigned port, PortRegister reg) {
    return ports_offset + port * port_size + static_cast<uint32_t>(reg);
  }
  uint32_t get(unsigned port, PortRegister reg) { return read(at(port, reg)); }
  void set(unsigned port, PortRegister reg, uint32_t value) { write(at(port, reg), value); }
  bool interrupt() { return lines[pci::intx_gsi(slot, 0) - pci::first_intx_gsi].level(); }

  void start(unsigned port) {
    set(port, PortRegister::CLB, static_cast<uint32_t>(list + port * 0x400));
    set(port, PortRegister::FB, static_cast<uint32_t>(received + port * 0x100));
    set(port, PortRegister::IE, ~0u);
    set(port, PortRegister::CMD, cmd_receive_enable);
    set(port, PortRegister::CMD, cmd_receive_enable | cmd_start);
  }
  static Gpa table(unsigned command_slot) { return tables + command_slot * 0x1000; }

  struct Buffer {
    Gpa address;
    uint32_t size;
  };
  // Writes header, frame and descriptors of a slot.
  void prepare(unsigned port, unsigned command_slot, std::array<uint8_t, 16> frame,
               const std::vector<Buffer>& buffers = {}, uint16_t flags = 0, std::array<uint8_t, 16> packet = {}) {
    CommandHeader header;
    header.flags = static_cast<uint16_t>(5 | flags);
    header.descriptors = static_cast<uint16_t>(buffers.size());
    header.table_low = static_cast<uint32_t>(table(command_slot));
    ASSERT_TRUE(memory->write_object(list + port * 0x400 + command_slot * sizeof header, header));
    ASSERT_TRUE(memory->write(table(command_slot), frame));
    ASSERT_TRUE(memory->write(table(command_slot) + packet_offset, packet));
    for (size_t i = 0; i < buffers.size(); ++i) {
      const Descriptor descriptor{static_cast<uint32_t>(buffers[i].address),
                                  static_cast<uint32_t>(buffers[i].address >> 32), 0, buffers[i].size - 1};
      ASSERT_TRUE(memory->write_object(table(command_slot) + command_table_fixed + i * sizeof descriptor, descriptor));
    }
  }
  static std::array<uint8_t, 16> frame(uint8_t command, uint64_t lba = 0, uint16_t count = 0, uint16_t features = 0) {
    return {fis_host_registers,
            fis_is_command,
            command,
            static_cast<uint8_t>(features),
            static_cast<uint8_t>(lba),
            static_cast<uint8_t>(lba >> 8),
            static_cast<uint8_t>(lba >> 16),
            0x40,
            static_cast<uint8_t>(lba >> 24),
            static_cast<uint8_t>(lba >> 32),
            static_cast<uint8_t>(lba >> 40),
            static_cast<uint8_t>(features >> 8),
            static_cast<uint8_t>(count),
            static_cast<uint8_t>(count >> 8),
            0,
            0};
  }
  void issue(unsigned port, unsigned command_slot = 0) { set(port, PortRegister::CI, 1u << command_slot); }
  void packet(std::array<uint8_t, 16> bytes, const std::vector<Buffer>& buffers = {}) {
    prepare(1, 0, frame(0xa0, 0, 0, 1), buffers, header_packet, bytes);
    set(1, PortRegister::IS, ~0u);
    issue(1);
  }
  std::vector<uint8_t> bytes(Gpa address, size_t size) {
    std::vector<uint8_t> out(size);
    EXPECT_TRUE(memory->read(address, out));
    return out;
  }
  uint32_t transferred(unsigned port, unsigned command_slot = 0) {
    CommandHeader header;
    EXPECT_TRUE(memory->read_object(list + port * 0x400 + command_slot * sizeof header, header));
    return header.transferred;
  }
  void restart(unsigned port) {
    set(port, PortRegister::CMD, cmd_receive_enable);
    set(port, PortRegister::IS, ~0u);
    set(port, PortRegister::CMD, cmd_receive_enable | cmd_start);
  }

  pci::Layout layout;
  Bus bus;
  std::array<test_support::RecordingLine, pci::intx_gsi_count> lines;
  std::unique_ptr<GuestMemory> memory = *GuestMemory::create(uint64_t{4} << 20);
  FakeDisk disk{1 << 20};
  FakeDisk disc{256 * 2048, true};
  pci::HostBridge bridge{bus, layout,
                         [this](unsigned gsi) -> InterruptLine& { return lines[gsi - pci::first_intx_gsi]; }};
  Ahci* ahci = nullptr;
  unsigned slot = 0;
};

TEST_F(AhciTest, PortsSayWhatIsBehindThem) {
  EXPECT_EQ(get(0, PortRegister::SIG), 0x0000'0101u);
  EXPECT_EQ(get(1, PortRegister::SIG), 0xeb14'0101u);
  EXPECT_EQ(get(2, PortRegister::SIG), ~0u);
  EXPECT_EQ(get(0, PortRegister::SSTS), 0x133u);
  EXPECT_EQ(get(2, PortRegister::SSTS), 0u);
  EXPECT_EQ(get(0, PortRegister::TFD), 0x150u);
  EXPECT_EQ(get(2, PortRegister::TFD), 0x7fu);
  EXPECT_EQ(bytes(received + received_registers, 2), (std::vector<uint8_t>{fis_registers, fis_interrupt}));
}

TEST_F(AhciTest, ReadScattersOverDescriptors) {
  prepare(0, 3, frame(0x25, 2, 4), {{data, 512}, {data + 0x2000, 1024}, {data + 0x4000, 65536}});
  issue(0, 3);
  EXPECT_EQ(get(0, PortRegister::CI), 8u);
  EXPECT_EQ(get(0, PortRegister::TFD) & status_busy, status_busy);
  EXPECT_FALSE(interrupt());
  disk.complete_all();
  EXPECT_EQ(get(0, PortRegister::CI), 0u);
  EXPECT_EQ(get(0, PortRegister::TFD), status_good);
  EXPECT_EQ(transferred(0, 3), 2048u);
  const auto expected = [&](size_t from, size_t size) {
    return std::vector<uint8_t>(disk.contents.begin() + static_cast<std::ptrdiff_t>(from),
                                disk.contents.begin() + static_cast<std::ptrdiff_t>(from + size));
  };
  EXPECT_EQ(bytes(data, 512), expected(1024, 512));
  EXPECT_EQ(bytes(data + 0x2000, 1024), expected(1536, 1024));
  EXPECT_EQ(bytes(data + 0x4000, 512), expected(2560, 512));
  EXPECT_EQ(bytes(data + 0x4000 + 512, 1), std::vector<uint8_t>{0});
  EXPECT_TRUE(interrupt());
  EXPECT_EQ(read(8), 1u);
  set(0, PortRegister::IS, ~0u);
  write(8, 1);
  EXPECT_FALSE(interrupt());
}

TEST_F(AhciTest, WritesReachTheDiskAndFuaIsFlushed) {
  const std::vector<uint8_t> text(512, 0x5a);
  ASSERT_TRUE(memory->write(data, text));
  prepare(0, 0, frame(0x35, 7, 1), {{data, 512}}, 1u << 6);
  issue(0);
  disk.complete_all();
  EXPECT_EQ(disk.contents[7 * 512], 0x5a);
  EXPECT_EQ(disk.log, std::vector<BlockOp>{BlockOp::Write});
  prepare(0, 0, frame(0x3d, 8, 1), {{data, 512}}, 1u << 6);
  issue(0);
  disk.complete();
  EXPECT_EQ(get(0, PortRegister::CI), 1u) << "ended before the flush";
  disk.complete();
  EXPECT_EQ(get(0, PortRegister::CI), 0u);
  EXPECT_EQ(disk.log.back(), BlockOp::Flush);
  // Without a write cache every write is.
  prepare(0, 0, frame(0xef, 0, 0, 0x82));
  issue(0);
  disk.complete_all();
  disk.log.clear();
  prepare(0, 0, frame(0x35, 9, 1), {{data, 512}}, 1u << 6);
  issue(0);
  disk.complete_all();
  EXPECT_EQ(disk.log, (std::vector<BlockOp>{BlockOp::Write, BlockOp::Flush}));
}

TEST_F(AhciTest, CommandsOfAPortFollowEachOther) {
  for (unsigned i = 0; i < 3; ++i) prepare(0, 10 + i, frame(0x25, i, 1), {{data + 512 * i, 512}});
  set(0, PortRegister::CI, 7u << 10);
  EXPECT_EQ(disk.waiting.size(), 1u);
  disk.complete();
  EXPECT_EQ(get(0, PortRegister::CI), 6u << 10);
  disk.complete();
  disk.complete();
  EXPECT_EQ(get(0, PortRegister::CI), 0u);
  EXPECT_EQ(bytes(data + 1024, 1)[0], disk.contents[1024]);
}

TEST_F(AhciTest, IdentifyIsPioAndSaysTheSize) {
  prepare(0, 0, frame(0xec), {{data, 512}});
  issue(0);
  EXPECT_EQ(get(0, PortRegister::IS), is_pio_setup);
  EXPECT_EQ(bytes(received + received_pio_setup, 1)[0], fis_pio_setup);
  EXPECT_EQ(bytes(received + received_pio_setup + 15, 3), (std::vector<uint8_t>{status_good, 0, 2}));
  const auto words = bytes(data, 512);
  EXPECT_EQ(words[200] | words[201] << 8, 2048);
  EXPECT_EQ(std::string(words.begin() + 20, words.begin() + 26), "esirla");  // "serial", bytes of words swapped
  uint8_t sum = 0;
  for (const uint8_t byte : words) sum = static_cast<uint8_t>(sum + byte);
  EXPECT_EQ(sum, 0);
}

TEST_F(AhciTest, WhatIsBeyondTheEndFailsAndStopsThePort) {
  prepare(0, 0, frame(0x25, 2047, 2), {{data, 1024}});
  prepare(0, 1, frame(0xec), {{data, 512}});
  set(0, PortRegister::CI, 3);
  EXPECT_EQ(get(0, PortRegister::TFD), uint32_t{status_good | status_error} | uint32_t{error_no_such_address} << 8);
  EXPECT_EQ(get(0, PortRegister::IS), is_registers | is_task_file_error);
  EXPECT_EQ(get(0, PortRegister::CI), 3u) << "6.2.2.1: neither the failed command nor those after it";
  EXPECT_TRUE(disk.waiting.empty());
  restart(0);
  EXPECT_EQ(get(0, PortRegister::CI), 0u);
  issue(0, 1);
  EXPECT_EQ(get(0, PortRegister::CI), 0u);
  // 48 bits do not wrap.
  prepare(0, 0, frame(0x25, 0xffff'ffff'ffff, 0), {{data, 512}});
  issue(0);
  EXPECT_EQ(get(0, PortRegister::IS) & is_task_file_error, is_task_file_error);
}

TEST_F(AhciTest, AnErrorOfTheImageIsUncorrectable) {
  prepare(0, 0, frame(0x25, 5, 1), {{data, 512}});
  issue(0);
  disk.complete(0, EIO);
  EXPECT_EQ(get(0, PortRegister::TFD) >> 8, error_uncorrectable);
  EXPECT_EQ(transferred(0), 0u);
  EXPECT_EQ(get(0, PortRegister::CI), 1u);
}

TEST_F(AhciTest, WhatIsNoMemoryIsABusError) {
  struct Case {
    const char* what;
    std::function<void()> prepare;
  };
  const Case cases[] = {
      {"data",
       [&] {
         prepare(0, 0, frame(0x25, 0, 1), {{0x8000'0000, 512}});
       }},
      {"data that ends outside",
       [&] {
         prepare(0, 0, frame(0x25, 0, 2), {{memory->size() - 512, 1024}});
       }},
      {"data that wraps",
       [&] {
         prepare(0, 0, frame(0x25, 0, 8), {{~Gpa{0} - 1, 4096}});
       }},
      {"the table",
       [&] {
         prepare(0, 0, frame(0x25, 0, 1), {{data, 512}});
         CommandHeader header;
         header.table_high = ~0u;
         header.table_low = ~0u;
         header.descriptors = 0xffff;
         ASSERT_TRUE(memory->write_object(list, header));
       }},
      {"the list", [&] { set(0, PortRegister::CLB, 0xffff'fc00); }},
  };
  for (const Case& one : cases) {
    one.prepare();
    issue(0);
    EXPECT_EQ(get(0, PortRegister::IS), is_bus_fatal) << one.what;
    EXPECT_EQ(get(0, PortRegister::CI), 1u) << one.what;
    EXPECT_TRUE(disk.waiting.empty()) << one.what;
    set(0, PortRegister::CLB, list);
    restart(0);
  }
  // The port works again.
  prepare(0, 0, frame(0x25, 0, 1), {{data, 512}});
  issue(0);
  disk.complete_all();
  EXPECT_EQ(get(0, PortRegister::CI), 0u);
}

TEST_F(AhciTest, TooFewDescriptorsAreAnOverflow) {
  prepare(0, 0, frame(0x25, 0, 2), {{data, 512}});
  issue(0);
  EXPECT_EQ(get(0, PortRegister::IS), is_overflow);
  EXPECT_TRUE(disk.waiting.empty());
}

TEST_F(AhciTest, NothingMovesWithoutBusMastering) {
  config(pci::command, pci::command_memory);
  prepare(0, 0, frame(0x25, 0, 1), {{data, 512}});
  issue(0);
  EXPECT_TRUE(disk.waiting.empty());
  config(pci::command, pci::command_memory | pci::command_bus_master);
  EXPECT_EQ(disk.waiting.size(), 1u);
  disk.complete_all();
}

TEST_F(AhciTest, StoppingAPortForgetsItsCommands) {
  prepare(0, 0, frame(0x25, 0, 1), {{data, 512}});
  issue(0);
  set(0, PortRegister::CMD, cmd_receive_enable);
  EXPECT_TRUE(disk.waiting.empty());
  EXPECT_EQ(get(0, PortRegister::CI), 0u);
  EXPECT_EQ(get(0, PortRegister::CMD) & (cmd_list_running | cmd_receive_running), cmd_receive_running);
  EXPECT_EQ(get(0, PortRegister::IS), 0u);
  issue(0);
  EXPECT_EQ(get(0, PortRegister::CI), 0u) << "issued while stopped";
}

TEST_F(AhciTest, ComresetBringsTheSignatureBack) {
  set(0, PortRegister::CMD, cmd_receive_enable);
  set(0, PortRegister::SCTL, 0x301);
  EXPECT_EQ(get(0, PortRegister::SSTS), 0u);
  EXPECT_EQ(get(0, PortRegister::TFD), 0x7fu);
  set(0, PortRegister::SCTL, 0x300);
  EXPECT_EQ(get(0, PortRegister::SSTS), 0x133u);
  EXPECT_EQ(get(0, PortRegister::TFD), 0x150u);
  EXPECT_EQ(get(0, PortRegister::IS), is_connect_change);
  set(0, PortRegister::IS, ~0u);
  EXPECT_EQ(get(0, PortRegister::IS), is_connect_change) << "PxSERR has it still";
  set(0, PortRegister::SERR, ~0u);
  EXPECT_EQ(get(0, PortRegister::IS), 0u);
}

TEST_F(AhciTest, SoftwareResetTakesTwoFrames) {
  auto control = frame(0);
  control[1] = 0;
  control[15] = control_reset;
  prepare(1, 0, control, {}, header_clear_busy);
  issue(1);
  EXPECT_EQ(get(1, PortRegister::CI), 0u);
  control[15] = 0;
  prepare(1, 1, control);
  issue(1, 1);
  EXPECT_EQ(get(1, PortRegister::CI), 0u);
  EXPECT_EQ(get(1, PortRegister::SIG), 0xeb14'0101u);
  EXPECT_EQ(get(1, PortRegister::TFD), 0x100u);
}

TEST_F(AhciTest, TheControllersResetLeavesAddresses) {
  prepare(0, 0, frame(0x25, 0, 1), {{data, 512}});
  issue(0);
  write(4, ghc_reset);
  EXPECT_EQ(read(4), ghc_ahci_enable);
  EXPECT_TRUE(disk.waiting.empty());
  EXPECT_EQ(get(0, PortRegister::CMD), cmd_spin_up | cmd_power_on);
  EXPECT_EQ(get(0, PortRegister::CLB), list);
  EXPECT_EQ(get(0, PortRegister::SIG), ~0u) << "no frame was received yet";
}

TEST_F(AhciTest, TrimZeroesRangesAndRefusesOthers) {
  std::vector<uint8_t> ranges(512);
  ranges[0] = 4;  // 3 sectors at 4
  ranges[6] = 3;
  ASSERT_TRUE(memory->write(data, ranges));
  prepare(0, 0, frame(0x06, 0, 1, 1), {{data, 512}}, 1u << 6);
  issue(0);
  disk.complete_all();
  EXPECT_EQ(get(0, PortRegister::CI), 0u);
  EXPECT_EQ(disk.log, std::vector<BlockOp>{BlockOp::WriteZeroes});
  EXPECT_EQ(disk.contents[5 * 512 + 3], 0);
  EXPECT_NE(disk.contents[7 * 512 + 3], 0);
  ranges[5] = 0xff;
  ASSERT_TRUE(memory->write(data, ranges));
  issue(0);
  EXPECT_EQ(get(0, PortRegister::IS) & is_task_file_error, is_task_file_error);
}

TEST_F(AhciTest, TheDriveReadsBlocksAndRefusesWhatIsBeyond) {
  packet({0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0}, {{data, 8192}});
  disc.complete_all();
  EXPECT_EQ(get(1, PortRegister::CI), 0u);
  EXPECT_EQ(get(1, PortRegister::TFD), status_good);
  EXPECT_EQ(transferred(1), 4096u);
  EXPECT_EQ(bytes(data + 2048, 1)[0], disc.contents[4 * 2048]);
  EXPECT_EQ(bytes(data + 4096, 1)[0], 0);
  packet({0x25}, {{data, 8}});
  EXPECT_EQ(bytes(data, 8), (std::vector<uint8_t>{0, 0, 0, 255, 0, 0, 8, 0}));
  packet({0xa8, 0, 0, 0, 0, 255, 0, 0, 0, 2}, {{data, 4096}});
  EXPECT_EQ(get(1, PortRegister::TFD), uint32_t{status_good | status_error} | uint32_t{5 << 4 | error_abort} << 8);
  restart(1);
  packet({0x03, 0, 0, 0, 18}, {{data, 18}});
  EXPECT_EQ(bytes(data + 2, 1)[0], 5);
  EXPECT_EQ(bytes(data + 12, 2), (std::vector<uint8_t>{0x21, 0}));
  // Told once.
  packet({0x03, 0, 0, 0, 18}, {{data, 18}});
  EXPECT_EQ(bytes(data + 2, 1)[0], 0);
}

TEST_F(AhciTest, TheTrayOpensUnlessLocked) {
  packet({0x1e, 0, 0, 0, 1});
  packet({0x1b, 0, 0, 0, 2});
  EXPECT_NE(get(1, PortRegister::TFD) & status_error, 0u) << "locked";
  restart(1);
  packet({0x1e, 0, 0, 0, 0});
  packet({0x1b, 0, 0, 0, 2});
  EXPECT_EQ(get(1, PortRegister::TFD) & status_error, 0u);
  packet({0x00});
  EXPECT_EQ(get(1, PortRegister::TFD) >> 12, 2u) << "not ready";
  restart(1);
  ahci->reset();  // the tray stays open
  config(pci::base_address + 4 * Ahci::register_bar, bar);
  config(pci::command, pci::command_memory | pci::command_bus_master);
  start(1);
  packet({0x28, 0, 0, 0, 0, 0, 0, 0, 1}, {{data, 2048}});
  EXPECT_EQ(get(1, PortRegister::TFD) >> 12, 2u);
  restart(1);
  packet({0x1b, 0, 0, 0, 3});
  packet({0x00});
  EXPECT_EQ(get(1, PortRegister::TFD) >> 12, 6u) << "a medium was put in";
  restart(1);
  packet({0x00});
  EXPECT_EQ(get(1, PortRegister::TFD) & status_error, 0u);
}

TEST_F(AhciTest, AnswersAreNoLongerThanAskedFor) {
  packet({0x12, 0, 0, 0, 5}, {{data, 512}});
  EXPECT_EQ(transferred(1), 5u);
  EXPECT_EQ(bytes(data, 5), (std::vector<uint8_t>{5, 0x80, 5, 0x32, 31}));
  packet({0x43, 2, 0, 0, 0, 0, 0, 0, 20}, {{data, 20}});
  EXPECT_EQ(bytes(data, 4), (std::vector<uint8_t>{0, 18, 1, 1}));
  EXPECT_EQ(bytes(data + 16, 4), (std::vector<uint8_t>{0, 0, 5, 31}));  // 256 blocks and two seconds
}

TEST_F(AhciTest, StateSurvivesASave) {
  prepare(0, 0, frame(0x25, 0, 1), {{data, 512}});
  prepare(0, 1, frame(0x25, 1, 1), {{data + 512, 512}});
  set(0, PortRegister::CI, 3);
  ahci->quiesce();
  EXPECT_EQ(get(0, PortRegister::CI), 0u);
  test_support::expect_round_trip(*ahci, [&](Ahci::State& state) {
    fields::Buffer saved;
    ahci->save(saved);
    Ahci::State original{};
    ASSERT_TRUE(fields::restore(original, saved).has_value());
    state.config = original.config;
    state.control = original.control;
    state.interrupts = original.interrupts ^ 2;
    for (auto& port : state.ports) {
      port.command_list = (port.command_list & ~1023ull) ^ 1024;
      port.received_fis = (port.received_fis & ~255ull) ^ 256;
      port.enabled = 0;  // or restoring would raise what is perturbed
      port.command = cmd_start;
      port.control &= sctl_writable;
      port.first_frame = false;
      port.device = {};
    }
    state.ports[0].device.write_cache = false;
    state.ports[1].device.locked = true;
  });
}

}  // namespace
}  // namespace caisson::storage
