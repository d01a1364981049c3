#include "devices/firmware/fw_cfg.h"

#include <cstring>

#include <gtest/gtest.h>

#include "bus/bus.h"
#include "devices/device_test_support.h"
#include "devices/firmware/debug_port.h"

namespace caisson {
namespace {

class FwCfgTest : public testing::Test {
 protected:
  void SetUp() override {
    bus.map(Space::Port, FwCfg::port, FwCfg::port_length, device, 0, {1, 2});
    bus.map(Space::Port, FwCfg::dma_port, FwCfg::dma_port_length, device, 1, {1, 8});
    device.add_file("etc/b", {'b', 'b'});
    device.add_file("etc/a", {1, 2, 3});
  }
  void select(uint16_t key) { bus.write(Space::Port, FwCfg::port, 2, key); }
  std::string bytes(size_t count) {
    std::string out;
    while (count-- > 0) out += static_cast<char>(bus.read(Space::Port, FwCfg::port + 1, 1));
    return out;
  }
  // Returns the control field afterwards.
  uint32_t dma(uint32_t control, uint32_t length, uint64_t address) {
    struct {
      uint32_t control, length;
      uint64_t address;
    } descriptor{__builtin_bswap32(control), __builtin_bswap32(length), __builtin_bswap64(address)};
    EXPECT_TRUE(memory->write_object(0x1000, descriptor));
    bus.write(Space::Port, FwCfg::dma_port, 4, 0);
    bus.write(Space::Port, FwCfg::dma_port + 4, 4, __builtin_bswap32(0x1000));
    uint32_t after = 0;
    EXPECT_TRUE(memory->read_object(0x1000, after));
    return __builtin_bswap32(after);
  }

  std::unique_ptr<GuestMemory> memory = *GuestMemory::create(uint64_t{2} << 20);
  Bus bus;
  FwCfg device{*memory};
};

TEST_F(FwCfgTest, ItemsAreReadByteByByteAndEndInZeros) {
  select(FwCfg::signature);
  EXPECT_EQ(bytes(6), std::string("QEMU\0\0", 6));
  select(FwCfg::interface_version);
  EXPECT_EQ(bytes(4), std::string("\3\0\0\0", 4));
  select(0x7777);  // there is none
  EXPECT_EQ(bytes(1), std::string(1, '\0'));
  EXPECT_EQ(bus.read(Space::Port, FwCfg::dma_port, 8), __builtin_bswap64(0x51454d5520434647));
}

TEST_F(FwCfgTest, TheDirectoryIsSortedAndNamesKeysAndSizes) {
  select(FwCfg::file_directory);
  EXPECT_EQ(bytes(4), std::string("\0\0\0\2", 4));
  const std::string first = bytes(64);
  EXPECT_EQ(first.substr(0, 8), std::string("\0\0\0\3\0\x21\0\0", 8));
  EXPECT_STREQ(first.c_str() + 8, "etc/a");
  select(0x21);
  EXPECT_EQ(bytes(3), "\1\2\3");
}

TEST_F(FwCfgTest, DmaReadsSkipsAndFillsWithZeros) {
  ASSERT_TRUE(memory->write(0x2000, std::vector<uint8_t>(8, 0xee)));
  EXPECT_EQ(dma(0x21u << 16 | 8 | 4, 1, 0), 0u);  // select and skip one byte
  EXPECT_EQ(dma(2, 4, 0x2000), 0u);
  uint64_t got = 0;
  ASSERT_TRUE(memory->read_object(0x2000, got));
  EXPECT_EQ(got, 0xeeee'eeee'0000'0302u);
}

TEST_F(FwCfgTest, HostileDmaIsAnErrorAndTouchesNothing) {
  EXPECT_EQ(dma(0x20u << 16 | 8 | 2, 0xffff'ffff, 0x2000), 1u);
  EXPECT_EQ(dma(0x20u << 16 | 8 | 2, 16, ~uint64_t{0} - 4), 1u);
  EXPECT_EQ(dma(0x20u << 16 | 8 | 16, 2, 0x2000), 1u);       // nothing can be written
  bus.write(Space::Port, FwCfg::dma_port, 8, ~uint64_t{0});  // a descriptor where there is no memory
  EXPECT_EQ(dma(4, 0xffff'ffff, 0), 0u);
  EXPECT_EQ(dma(4, 0xffff'ffff, 0), 0u);  // the offset stays at its end
  EXPECT_EQ(bytes(1), std::string(1, '\0'));
}

TEST_F(FwCfgTest, MadeFilesAreMadeWhenSelected) {
  uint8_t value = 1;
  device.add_file("made", [&] { return std::vector<uint8_t>{value}; });
  value = 7;
  select(0x22);
  EXPECT_EQ(bytes(1), "\7");
}

TEST_F(FwCfgTest, RoundTrip) { test_support::expect_round_trip(device); }

TEST(FirmwareDebugPort, GivesWholePrintableLines) {
  std::vector<std::string> lines;
  FirmwareDebugPort port([&](const std::string& line) { lines.push_back(line); });
  EXPECT_EQ(port.read(0, 0, 1), 0xe9u);
  for (const char c : std::string("hello\x1b[m\r\n")) port.write(0, 0, 1, static_cast<uint8_t>(c));
  for (unsigned i = 0; i < 1000; ++i) port.write(0, 0, 1, 'x');
  port.write(0, 0, 1, '\n');
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], "hello?[m");
  EXPECT_EQ(lines[1].size(), FirmwareDebugPort::longest);
}

}  // namespace
}  // namespace caisson
