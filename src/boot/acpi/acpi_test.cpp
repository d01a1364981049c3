#include <array>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "boot/acpi/tables.h"
#include "boot/bytes.h"

namespace caisson::boot {
namespace {

constexpr Gpa tables_at = 0x7ff'0000, facs_at = 0x7ff'f000;

AcpiConfig full_config(unsigned cpus) {
  AcpiConfig config;
  config.cpus = cpus;
  config.pm1_event = 0x600;
  config.pm1_control = 0x604;
  config.pm_timer = 0x608;
  config.pm_timer_32bit = true;
  config.gpe0 = 0x620;
  config.gpe0_length = 16;
  config.keyboard_controller = true;
  config.serial = {{0x3f8, 4}, {0x2f8, 3}};
  config.pvpanic_port = 0x505;
  config.hpet = {.address = 0xfed0'0000, .capabilities = 0x0098'9680'8086'a201};
  AcpiConfig::Pci pci;
  pci.ecam_base = 0xe000'0000;
  pci.buses = 256;
  pci.io = {{0x1000, 0xf000}};
  pci.memory32 = {{0xc000'0000, 0x2000'0000}};
  pci.memory64 = {{0x80'0000'0000, 0x40'0000'0000}};
  for (uint8_t device = 0; device < 32; ++device) {
    for (uint8_t pin = 0; pin < 4; ++pin) pci.routes.push_back({device, pin, 16u + (device + pin) % 8u});
  }
  config.pci = pci;
  config.hotplug = {.port = 0x6c0, .gpe = 1, .slots = 0x7fff'fffe};
  return config;
}

uint8_t sum(Bytes bytes) { return static_cast<uint8_t>(std::accumulate(bytes.begin(), bytes.end(), 0)); }

// The table at a guest address, checked for its length and checksum.
Bytes table_at(const acpi::Tables& tables, Gpa at, std::string_view signature) {
  EXPECT_GE(at, tables_at);
  const Bytes all{tables.tables};
  const auto length = read_le<uint32_t>(all, at - tables_at + 4);
  EXPECT_TRUE(length);
  const auto table = slice(all, at - tables_at, length.value_or(0));
  EXPECT_TRUE(table && table->size() >= 36);
  if (!table) return {};
  EXPECT_TRUE(starts_with(*table, signature)) << signature;
  EXPECT_EQ(sum(*table), 0) << signature;
  EXPECT_EQ(at % 64, 0u);
  return *table;
}

struct Parsed {
  Bytes fadt, dsdt, madt, mcfg, hpet;
};
Parsed parse(const acpi::Tables& tables) {
  Parsed out;
  const Bytes rsdp{tables.rsdp};
  EXPECT_EQ(rsdp.size(), 36u);
  EXPECT_TRUE(starts_with(rsdp, "RSD PTR "));
  EXPECT_EQ(sum(rsdp.first(20)), 0);
  EXPECT_EQ(sum(rsdp), 0);
  const Bytes xsdt = table_at(tables, *read_le<uint64_t>(rsdp, 24), "XSDT");
  const Bytes rsdt = table_at(tables, *read_le<uint32_t>(rsdp, 16), "RSDT");
  EXPECT_EQ((xsdt.size() - 36) / 8, (rsdt.size() - 36) / 4);
  for (size_t at = 36; at < xsdt.size(); at += 8) {
    const Gpa address = *read_le<uint64_t>(xsdt, at);
    EXPECT_EQ(*read_le<uint32_t>(rsdt, 36 + (at - 36) / 2), address);
    const Bytes all{tables.tables};
    const Bytes from = all.subspan(address - tables_at);
    if (starts_with(from, "FACP")) out.fadt = table_at(tables, address, "FACP");
    if (starts_with(from, "APIC")) out.madt = table_at(tables, address, "APIC");
    if (starts_with(from, "HPET")) out.hpet = table_at(tables, address, "HPET");
    if (starts_with(from, "MCFG")) out.mcfg = table_at(tables, address, "MCFG");
  }
  out.dsdt = table_at(tables, *read_le<uint64_t>(out.fadt, 140), "DSDT");
  EXPECT_EQ(*read_le<uint32_t>(out.fadt, 40), *read_le<uint64_t>(out.fadt, 140));
  EXPECT_EQ(*read_le<uint32_t>(out.fadt, 36), facs_at);
  return out;
}

TEST(Acpi, TablesPointAtEachOtherAndAddUp) {
  for (const unsigned cpus : {1u, 8u, 300u}) {
    const auto tables = acpi::build(full_config(cpus), tables_at, facs_at);
    const Parsed parsed = parse(tables);
    EXPECT_EQ(parsed.fadt.size(), 276u);
    EXPECT_EQ(*read_le<uint64_t>(parsed.mcfg, 44), 0xe000'0000u);
    EXPECT_EQ(parsed.mcfg[55], 255);
    ASSERT_EQ(parsed.hpet.size(), 56u);
    EXPECT_EQ(*read_le<uint32_t>(parsed.hpet, 36), 0x8086'a201u);
    EXPECT_EQ(*read_le<uint64_t>(parsed.hpet, 44), 0xfed0'0000u);
    EXPECT_EQ(tables.facs.size(), 64u);
    // The size is known before the address.
    EXPECT_EQ(acpi::build(full_config(cpus), 0, 0).tables.size(), tables.tables.size());
  }
}

TEST(Acpi, Fadt) {
  const auto tables = acpi::build(full_config(1), tables_at, facs_at);
  const Bytes fadt = parse(tables).fadt;
  EXPECT_EQ(*read_le<uint16_t>(fadt, 46), 9);                    // SCI_INT
  EXPECT_EQ(*read_le<uint32_t>(fadt, 48), 0u);                   // SMI_CMD: always in ACPI mode
  EXPECT_EQ(*read_le<uint32_t>(fadt, 56), 0x600u);               // PM1a_EVT_BLK
  EXPECT_EQ(*read_le<uint32_t>(fadt, 64), 0x604u);               // PM1a_CNT_BLK
  EXPECT_EQ(*read_le<uint32_t>(fadt, 76), 0x608u);               // PM_TMR_BLK
  EXPECT_EQ(fadt[88], 4);                                        // PM1_EVT_LEN
  EXPECT_EQ(fadt[89], 2);                                        // PM1_CNT_LEN
  EXPECT_EQ(fadt[108], 0x32);                                    // CENTURY
  EXPECT_EQ(*read_le<uint16_t>(fadt, 109), 1u | 2u | 4u | 16u);  // IAPC_BOOT_ARCH
  const uint32_t flags = *read_le<uint32_t>(fadt, 112);
  EXPECT_EQ(flags & (1u << 4), 0u) << "the power button is fixed hardware";
  EXPECT_NE(flags & (1u << 8), 0u);
  EXPECT_NE(flags & (1u << 10), 0u);
  EXPECT_EQ(flags & (1u << 20), 0u) << "not hardware-reduced";
  EXPECT_EQ(fadt[116], 1);  // RESET_REG in port space
  EXPECT_EQ(*read_le<uint64_t>(fadt, 120), 0xcf9u);
  EXPECT_EQ(fadt[128], 6);                           // RESET_VALUE
  EXPECT_EQ(*read_le<uint64_t>(fadt, 152), 0x600u);  // X_PM1a_EVT_BLK
  EXPECT_EQ(*read_le<uint64_t>(fadt, 212), 0x608u);  // X_PM_TMR_BLK

  AcpiConfig bare;
  const auto bare_tables = acpi::build(bare, tables_at, facs_at);
  const Bytes bare_fadt = parse(bare_tables).fadt;
  EXPECT_EQ(*read_le<uint16_t>(bare_fadt, 109) & 2, 0) << "no 8042 where there is none";
  EXPECT_EQ(bare_fadt[88], 0);
  EXPECT_TRUE(parse(bare_tables).mcfg.empty());
}

TEST(Acpi, MadtListsEveryCpuOnce) {
  for (const unsigned cpus : {1u, 4u, 255u, 256u, 300u}) {
    const auto tables = acpi::build(full_config(cpus), tables_at, facs_at);
    const Bytes madt = parse(tables).madt;
    EXPECT_EQ(*read_le<uint32_t>(madt, 36), 0xfee0'0000u);
    EXPECT_EQ(*read_le<uint32_t>(madt, 40), 1u);
    std::vector<unsigned> seen(cpus);
    unsigned io_apics = 0, overrides = 0;
    size_t at = 44;
    while (at < madt.size()) {
      const uint8_t type = madt[at], length = madt[at + 1];
      ASSERT_GE(length, 2);
      ASSERT_LE(at + length, madt.size());
      if (type == 0) {
        ASSERT_LT(madt[at + 3], 255);
        EXPECT_EQ(madt[at + 2], madt[at + 3]);
        ++seen.at(madt[at + 3]);
      } else if (type == 9) {
        const uint32_t id = *read_le<uint32_t>(madt, at + 4);
        EXPECT_GE(id, 255u);
        EXPECT_EQ(*read_le<uint32_t>(madt, at + 12), id);
        ++seen.at(id);
      } else if (type == 1) {
        ++io_apics;
        EXPECT_EQ(*read_le<uint32_t>(madt, at + 4), 0xfec0'0000u);
      } else if (type == 2) {
        ++overrides;
        const uint8_t line = madt[at + 3];
        EXPECT_EQ(*read_le<uint32_t>(madt, at + 4), line == 0 ? 2u : line);
        EXPECT_EQ(*read_le<uint16_t>(madt, at + 8), line == 9 ? 0xd : 0);
      }
      at += length;
    }
    EXPECT_EQ(at, madt.size());
    EXPECT_EQ(io_apics, 1u);
    EXPECT_EQ(overrides, 2u);
    for (const unsigned count : seen) EXPECT_EQ(count, 1u);
  }
}

TEST(Aml, Encodings) {
  using namespace aml;
  EXPECT_EQ(integer(0), Aml{0});
  EXPECT_EQ(integer(1), Aml{1});
  EXPECT_EQ(integer(0xff), (Aml{0x0a, 0xff}));
  EXPECT_EQ(integer(0x100), (Aml{0x0b, 0, 1}));
  EXPECT_EQ(integer(0x1'0000'0000), (Aml{0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(name_string("\\_S5"), (Aml{'\\', '_', 'S', '5', '_'}));
  EXPECT_EQ(name_string("A.B"), (Aml{0x2e, 'A', '_', '_', '_', 'B', '_', '_', '_'}));
  EXPECT_EQ(name_string("A.B.C").at(0), 0x2f);
  EXPECT_EQ(eisa_id("PNP0A03"), (Aml{0x0c, 0x41, 0xd0, 0x0a, 0x03}));
  // PkgLength at its borders: 63 bytes fit one byte, 64 need two, 4096 three.
  const auto scope_of = [](size_t terms) { return scope("A", Aml(terms, 0x01)); };
  EXPECT_EQ(scope_of(58)[1], 63);
  EXPECT_EQ(scope_of(59)[1], 0x40 | (65 & 0xf));
  EXPECT_EQ(scope_of(59)[2], 65 >> 4);
  EXPECT_EQ(scope_of(4089)[1] >> 6, 1);
  EXPECT_EQ(scope_of(4090)[1] >> 6, 2);
}

// The reference implementation reads our AML without a complaint, and finds in it what we meant.
TEST(Acpi, IaslAgrees) {
  if (std::system("command -v iasl >/dev/null 2>&1") != 0) GTEST_SKIP() << "iasl (acpica-tools) is not installed";
  std::array<char, 32> folder{"/tmp/caisson-acpi-XXXXXX"};
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string base{folder.data()};
  for (const unsigned cpus : {2u, 300u}) {
    const auto tables = acpi::build(full_config(cpus), tables_at, facs_at);
    const Parsed parsed = parse(tables);
    std::ofstream(base + "/dsdt.aml", std::ios::binary)
        .write(reinterpret_cast<const char*>(parsed.dsdt.data()), static_cast<std::streamsize>(parsed.dsdt.size()));
    std::ofstream(base + "/fadt.aml", std::ios::binary)
        .write(reinterpret_cast<const char*>(parsed.fadt.data()), static_cast<std::streamsize>(parsed.fadt.size()));
    std::ofstream(base + "/madt.aml", std::ios::binary)
        .write(reinterpret_cast<const char*>(parsed.madt.data()), static_cast<std::streamsize>(parsed.madt.size()));
    // Disassemble, and compile the result again: warnings are errors.
    const std::string command = fmt::format(
        "cd {} && iasl -d dsdt.aml >log 2>&1 && iasl -oa -we -p again dsdt.dsl >>log 2>&1 && "
        "iasl -d fadt.aml madt.aml >>log 2>&1 && cmp -i 36 again.aml dsdt.aml >>log",
        base);
    std::string log;
    const int status = std::system(command.c_str());
    std::ifstream in(base + "/log");
    log.assign(std::istreambuf_iterator<char>(in), {});
    EXPECT_EQ(status, 0) << log;
    EXPECT_EQ(log.find("rror "), std::string::npos) << log;
    std::ifstream source(base + "/dsdt.dsl");
    const std::string text{std::istreambuf_iterator<char>(source), {}};
    for (const char* word :
         {"PNP0A08", "PNP0A03", "PNP0501", "PNP0B00", "ACPI0007", "QEMU0001", "_PRT", "_S5", "_E01", "_EJ0", "_SUN"}) {
      EXPECT_NE(text.find(word), std::string::npos) << word;
    }
  }
  EXPECT_EQ(std::system(fmt::format("rm -r {}", base).c_str()), 0);
}

}  // namespace
}  // namespace caisson::boot
