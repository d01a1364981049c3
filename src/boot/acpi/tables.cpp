#include "boot/acpi/tables.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <string_view>

#include "base/check.h"
#include "boot/bytes.h"

namespace caisson::boot::acpi {

namespace {

constexpr std::string_view oem_id = "CAISSN", oem_table_id = "CAISSON ", creator_id = "CAIS";

struct [[gnu::packed]] Header {
  char signature[4];
  uint32_t length;
  uint8_t revision;
  uint8_t checksum;
  char oem_id[6];
  char oem_table_id[8];
  uint32_t oem_revision;
  char creator_id[4];
  uint32_t creator_revision;
};
static_assert(sizeof(Header) == 36 && offsetof(Header, checksum) == checksum_offset);

// 5.2.3.2
struct [[gnu::packed]] GenericAddress {
  uint8_t space;  // 0 memory, 1 ports
  uint8_t bit_width;
  uint8_t bit_offset;
  uint8_t access_size;  // 1 byte, 2 word, 3 dword
  uint64_t address;
};

// 5.2.9, names as there
struct [[gnu::packed]] Fadt {
  uint32_t firmware_ctrl;
  uint32_t dsdt;
  uint8_t reserved0;
  uint8_t preferred_pm_profile;
  uint16_t sci_int;
  uint32_t smi_cmd;
  uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
  uint32_t pm1a_evt_blk, pm1b_evt_blk, pm1a_cnt_blk, pm1b_cnt_blk, pm2_cnt_blk, pm_tmr_blk, gpe0_blk, gpe1_blk;
  uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_blk_len, gpe1_blk_len, gpe1_base, cst_cnt;
  uint16_t p_lvl2_lat, p_lvl3_lat, flush_size, flush_stride;
  uint8_t duty_offset, duty_width, day_alrm, mon_alrm, century;
  uint16_t iapc_boot_arch;
  uint8_t reserved1;
  uint32_t flags;
  GenericAddress reset_reg;
  uint8_t reset_value;
  uint16_t arm_boot_arch;
  uint8_t minor_version;
  uint64_t x_firmware_ctrl, x_dsdt;
  GenericAddress x_pm1a_evt_blk, x_pm1b_evt_blk, x_pm1a_cnt_blk, x_pm1b_cnt_blk, x_pm2_cnt_blk, x_pm_tmr_blk,
      x_gpe0_blk, x_gpe1_blk, sleep_control_reg, sleep_status_reg;
  uint64_t hypervisor_vendor_identity;
};
static_assert(sizeof(Header) + sizeof(Fadt) == 276);

namespace fadt_flags {
constexpr uint32_t wbinvd = 1u << 0, proc_c1 = 1u << 2, no_sleep_button = 1u << 5, no_fixed_rtc = 1u << 6,
                   tmr_val_ext = 1u << 8, reset_reg_sup = 1u << 10;
}
namespace boot_arch {
constexpr uint16_t legacy_devices = 1u << 0, has_8042 = 1u << 1, vga_not_present = 1u << 2, no_aspm = 1u << 4,
                   cmos_rtc_not_present = 1u << 5;
}

struct [[gnu::packed]] Facs {
  char signature[4];
  uint32_t length;
  uint32_t hardware_signature;
  uint32_t firmware_waking_vector;
  uint32_t global_lock;
  uint32_t flags;
  uint64_t x_firmware_waking_vector;
  uint8_t version;
  uint8_t reserved[31];
};
static_assert(sizeof(Facs) == facs_size);

struct [[gnu::packed]] Rsdp {
  char signature[8];
  uint8_t checksum;
  char oem_id[6];
  uint8_t revision;
  uint32_t rsdt_address;
  uint32_t length;
  uint64_t xsdt_address;
  uint8_t extended_checksum;
  uint8_t reserved[3];
};
static_assert(sizeof(Rsdp) == 36);

uint8_t checksum(Bytes bytes) { return static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0)); }

template <size_t N>
void copy_text(char (&to)[N], std::string_view text) {
  CAISSON_CHECK(text.size() == N);
  std::memcpy(to, text.data(), N);
}

std::vector<uint8_t> table(std::string_view signature, uint8_t revision, Bytes body) {
  Header header{};
  copy_text(header.signature, signature);
  header.length = static_cast<uint32_t>(sizeof header + body.size());
  header.revision = revision;
  copy_text(header.oem_id, oem_id);
  copy_text(header.oem_table_id, oem_table_id);
  header.oem_revision = 1;
  copy_text(header.creator_id, creator_id);
  header.creator_revision = 1;
  std::vector<uint8_t> out(header.length);
  std::memcpy(out.data(), &header, sizeof header);
  std::ranges::copy(body, out.begin() + sizeof header);
  out[offsetof(Header, checksum)] = checksum(out);
  return out;
}

template <class T>
Bytes bytes_of(const T& object) {
  return {reinterpret_cast<const uint8_t*>(&object), sizeof object};
}

GenericAddress port(uint16_t address, uint8_t bytes, uint8_t access_size) {
  if (address == 0) return {};
  return {1, static_cast<uint8_t>(bytes * 8), 0, access_size, address};
}

std::vector<uint8_t> fadt(const AcpiConfig& config, Gpa dsdt_at, Gpa facs_at) {
  Fadt fadt{};
  fadt.firmware_ctrl = static_cast<uint32_t>(facs_at);
  fadt.dsdt = static_cast<uint32_t>(dsdt_at);
  fadt.x_dsdt = dsdt_at;          // X_FIRMWARE_CTRL stays 0: only one of the two may be set (5.2.9)
  fadt.preferred_pm_profile = 4;  // enterprise server
  fadt.sci_int = config.sci_irq;
  fadt.pm1a_evt_blk = config.pm1_event;
  fadt.pm1a_cnt_blk = config.pm1_control;
  fadt.pm_tmr_blk = config.pm_timer;
  fadt.gpe0_blk = config.gpe0;
  fadt.pm1_evt_len = config.pm1_event != 0 ? 4 : 0;
  fadt.pm1_cnt_len = config.pm1_control != 0 ? 2 : 0;
  fadt.pm_tmr_len = config.pm_timer != 0 ? 4 : 0;
  fadt.gpe0_blk_len = config.gpe0 != 0 ? config.gpe0_length : 0;
  fadt.p_lvl2_lat = 0xfff;  // C2 and C3 do not exist
  fadt.p_lvl3_lat = 0xfff;
  fadt.century = config.rtc ? config.rtc_century : 0;
  fadt.iapc_boot_arch = boot_arch::legacy_devices | boot_arch::no_aspm;
  if (config.keyboard_controller) fadt.iapc_boot_arch |= boot_arch::has_8042;
  if (!config.vga) fadt.iapc_boot_arch |= boot_arch::vga_not_present;
  if (!config.rtc) fadt.iapc_boot_arch |= boot_arch::cmos_rtc_not_present;
  // The power button is fixed hardware: its flag is clear.
  fadt.flags = fadt_flags::wbinvd | fadt_flags::proc_c1 | fadt_flags::no_sleep_button | fadt_flags::no_fixed_rtc |
               fadt_flags::reset_reg_sup;
  if (config.pm_timer_32bit) fadt.flags |= fadt_flags::tmr_val_ext;
  fadt.reset_reg = port(config.reset_port, 1, 1);
  fadt.reset_value = config.reset_value;
  fadt.minor_version = 5;
  fadt.x_pm1a_evt_blk = port(config.pm1_event, 4, 2);
  fadt.x_pm1a_cnt_blk = port(config.pm1_control, 2, 2);
  fadt.x_pm_tmr_blk = port(config.pm_timer, 4, 3);
  fadt.x_gpe0_blk = port(config.gpe0, config.gpe0_length, 1);
  std::memcpy(&fadt.hypervisor_vendor_identity, "CAISSON", 8);
  return table("FACP", 6, bytes_of(fadt));
}

std::vector<uint8_t> madt(const AcpiConfig& config) {
  constexpr uint8_t local_apic = 0, io_apic = 1, source_override = 2, local_nmi = 4, local_x2apic = 9, x2apic_nmi = 0xa;
  constexpr uint32_t pcat_compat = 1, enabled = 1;
  constexpr uint16_t conforms = 0, level_high = 0xd;
  constexpr unsigned first_x2apic = 255;  // 255 is the broadcast id of an xAPIC
  std::vector<uint8_t> body;
  append_le(body, config.local_apic);
  append_le(body, pcat_compat);
  for (unsigned id = 0; id < config.cpus; ++id) {
    if (id < first_x2apic) {
      body.insert(body.end(), {local_apic, 8, static_cast<uint8_t>(id), static_cast<uint8_t>(id)});
      append_le(body, enabled);
    } else {
      body.insert(body.end(), {local_x2apic, 16, 0, 0});
      append_le<uint32_t>(body, id);
      append_le(body, enabled);
      append_le<uint32_t>(body, id);
    }
  }
  body.insert(body.end(), {io_apic, 12, config.io_apic.id, 0});
  append_le(body, config.io_apic.address);
  append_le(body, config.io_apic.gsi_base);
  const auto override_irq = [&](uint8_t line, uint32_t gsi, uint16_t flags) {
    body.insert(body.end(), {source_override, 10, 0, line});
    append_le(body, gsi);
    append_le(body, flags);
  };
  override_irq(0, 2, conforms);  // the PIT's line enters the IOAPIC at pin 2
  override_irq(config.sci_irq, config.sci_irq, level_high);
  body.insert(body.end(), {local_nmi, 6, 0xff, 0, 0, 1});  // LINT1 of all CPUs
  if (config.cpus > first_x2apic) {
    body.insert(body.end(), {x2apic_nmi, 12, 0, 0});
    append_le(body, UINT32_MAX);
    body.insert(body.end(), {1, 0, 0, 0});
  }
  return table("APIC", 5, body);
}

std::vector<uint8_t> mcfg(const AcpiConfig::Pci& pci) {
  std::vector<uint8_t> body(8);
  append_le(body, pci.ecam_base);
  append_le<uint16_t>(body, 0);  // segment
  append_le<uint8_t>(body, 0);   // first bus
  append_le(body, static_cast<uint8_t>(pci.buses - 1));
  append_le<uint32_t>(body, 0);
  return table("MCFG", 1, body);
}

std::vector<uint8_t> hpet(const AcpiConfig::Hpet& hpet) {
  std::vector<uint8_t> body;
  append_le(body, static_cast<uint32_t>(hpet.capabilities));
  body.insert(body.end(), {0, 64, 0, 0});  // in memory, 64 bits wide
  append_le(body, uint64_t{hpet.address});
  append_le<uint8_t>(body, 0);      // number
  append_le<uint16_t>(body, 1000);  // ticks between interrupts, at least: 10 µs
  append_le<uint8_t>(body, 0);      // no promises of what else is in its page
  return table("HPET", 1, body);
}

std::vector<uint8_t> facs() {
  Facs facs{};
  std::memcpy(facs.signature, "FACS", 4);
  facs.length = sizeof facs;
  facs.version = 2;
  const Bytes bytes = bytes_of(facs);
  return {bytes.begin(), bytes.end()};
}

std::vector<uint8_t> rsdp(Gpa rsdt_at, Gpa xsdt_at) {
  Rsdp rsdp{};
  copy_text(rsdp.signature, "RSD PTR ");
  copy_text(rsdp.oem_id, oem_id);
  rsdp.revision = 2;
  rsdp.rsdt_address = static_cast<uint32_t>(rsdt_at);
  rsdp.length = sizeof rsdp;
  rsdp.xsdt_address = xsdt_at;
  rsdp.checksum = checksum(bytes_of(rsdp).first(20));  // the part that ACPI 1.0 knows
  rsdp.extended_checksum = checksum(bytes_of(rsdp));
  return {bytes_of(rsdp).begin(), bytes_of(rsdp).end()};
}

}  // namespace

Tables build(const AcpiConfig& config, Gpa tables_at, Gpa facs_at) {
  Tables out;
  const auto add = [&](const std::vector<uint8_t>& bytes) {
    out.tables.resize((out.tables.size() + 63) / 64 * 64);
    const Gpa at = tables_at + out.tables.size();
    out.each.push_back({static_cast<uint32_t>(out.tables.size()), static_cast<uint32_t>(bytes.size())});
    out.tables.insert(out.tables.end(), bytes.begin(), bytes.end());
    return at;
  };
  // An address in the body of the table that was added last.
  const auto pointer = [&](size_t offset, uint32_t size) {
    out.pointers.push_back({static_cast<uint32_t>(out.each.back().offset + sizeof(Header) + offset), size});
  };
  const Gpa dsdt_at = add(table("DSDT", 2, dsdt_terms(config)));
  std::vector<Gpa> list = {add(fadt(config, dsdt_at, facs_at))};
  pointer(offsetof(Fadt, firmware_ctrl), 4);
  pointer(offsetof(Fadt, dsdt), 4);
  pointer(offsetof(Fadt, x_dsdt), 8);
  list.push_back(add(madt(config)));
  if (config.pci && config.pci->ecam_base != 0) list.push_back(add(mcfg(*config.pci)));
  if (config.hpet) list.push_back(add(hpet(*config.hpet)));
  std::vector<uint8_t> short_list, long_list;
  for (const Gpa at : list) {
    append_le(short_list, static_cast<uint32_t>(at));
    append_le(long_list, at);
  }
  const Gpa rsdt_at = add(table("RSDT", 1, short_list));  // for systems that know ACPI 1.0 only
  for (size_t i = 0; i < list.size(); ++i) pointer(4 * i, 4);
  const Gpa xsdt_at = add(table("XSDT", 1, long_list));
  for (size_t i = 0; i < list.size(); ++i) pointer(8 * i, 8);
  out.facs = facs();
  out.rsdp = rsdp(rsdt_at, xsdt_at);
  return out;
}

}  // namespace caisson::boot::acpi
