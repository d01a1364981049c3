#include "boot/firmware.h"

#include <cstring>
#include <map>
#include <numeric>

#include <gtest/gtest.h>

namespace caisson::boot::firmware {
namespace {

uint32_t number(const uint8_t* at) {
  uint32_t value;
  std::memcpy(&value, at, 4);
  return value;
}

// Does what firmware does with the commands: files at addresses, pointers, checksums.
TEST(Firmware, TheLoadersCommandsMakeValidTables) {
  AcpiConfig config;
  config.cpus = 2;
  config.pci.emplace().ecam_base = 0xb000'0000;
  AcpiFiles files = acpi_files(config);
  std::map<std::string, std::pair<std::vector<uint8_t>*, uint64_t>> placed;
  const std::map<std::string, std::vector<uint8_t>*> known{{std::string(tables_file), &files.tables},
                                                           {std::string(rsdp_file), &files.rsdp}};
  uint64_t next = 0x1'0000;
  ASSERT_EQ(files.loader.size() % 128, 0u);
  for (size_t at = 0; at < files.loader.size(); at += 128) {
    const uint8_t* entry = &files.loader[at];
    const std::string name(reinterpret_cast<const char*>(entry + 4));
    switch (number(entry)) {
      case 1:
        ASSERT_TRUE(known.contains(name));
        placed[name] = {known.at(name), next};
        next += 0x1'0000;
        break;
      case 2: {
        const std::string target(reinterpret_cast<const char*>(entry + 60));
        ASSERT_TRUE(placed.contains(name) && placed.contains(target));
        uint64_t pointer = 0;
        const unsigned size = entry[120];
        uint8_t* field = placed[name].first->data() + number(entry + 116);
        std::memcpy(&pointer, field, size);
        ASSERT_LT(pointer, placed[target].first->size());
        pointer += placed[target].second;
        std::memcpy(field, &pointer, size);
        break;
      }
      case 3: {
        auto& bytes = *placed[name].first;
        const uint32_t start = number(entry + 64), length = number(entry + 68);
        ASSERT_LE(start + length, bytes.size());
        uint8_t& sum = bytes[number(entry + 60)];
        // SeaBIOS takes the sum of all from what is there, OVMF puts it there: the same only from zero on.
        EXPECT_EQ(sum, 0) << name << " at " << number(entry + 60);
        sum = static_cast<uint8_t>(-std::accumulate(&bytes[start], &bytes[start] + length, 0));
        break;
      }
      default: FAIL();
    }
  }
  // From the RSDP to every table: signatures and checksums hold.
  const uint64_t base = placed[std::string(tables_file)].second;
  EXPECT_EQ(std::accumulate(files.rsdp.begin(), files.rsdp.end(), 0) & 0xff, 0);
  const uint8_t* xsdt = &files.tables[number(&files.rsdp[24]) - base];
  ASSERT_EQ(std::memcmp(xsdt, "XSDT", 4), 0);
  unsigned tables = 0;
  for (const uint8_t* entry = xsdt + 36; entry < xsdt + number(xsdt + 4); entry += 8, ++tables) {
    const uint8_t* table = &files.tables[number(entry) - base];
    EXPECT_EQ(std::accumulate(table, table + number(table + 4), 0) & 0xff, 0);
    if (std::memcmp(table, "FACP", 4) == 0) {
      EXPECT_EQ(std::memcmp(&files.tables[number(table + 36) - base], "FACS", 4), 0);
      EXPECT_EQ(std::memcmp(&files.tables[number(table + 40) - base], "DSDT", 4), 0);
    }
  }
  EXPECT_EQ(tables, 3u);
}

TEST(Firmware, BootOrderNamesPlaces) {
  const auto bytes =
      boot_order({{.slot = 1}, {.slot = 10, .port = 2}, {.slot = 3, .nvme = true}, {.slot = 5, .usb_port = 2}});
  using namespace std::string_literals;
  EXPECT_EQ(std::string(bytes.begin(), bytes.end()),
            "/pci@i0cf8/scsi@1/disk@0,0\n/pci@i0cf8/pci8086,2922@a/drive@2/disk@0\n"
            "/pci@i0cf8/pci8086,5845@3/namespace@1,0\n/pci@i0cf8/usb@5/storage@2/channel@0/disk@0,0\0"s);
  EXPECT_TRUE(boot_order({}).empty());
}

}  // namespace
}  // namespace caisson::boot::firmware
