#include "boot/firmware.h"

#include <fmt/format.h>

#include "base/check.h"
#include "boot/bytes.h"
#include "boot/memory_map.h"

namespace caisson::boot::firmware {
namespace {

// The loader's commands: 128 bytes each, little-endian.
class Loader {
 public:
  enum Zone : uint8_t { high = 1, f_segment = 2 };

  void allocate(std::string_view file, uint32_t align, Zone zone) {
    begin(1);
    name(file);
    append_le(bytes_, align);
    append_le<uint8_t>(bytes_, zone);
    end();
  }
  // Adds the address of `target` to the `size` bytes at `offset` of `file`.
  void add_pointer(std::string_view file, std::string_view target, uint32_t offset, uint8_t size) {
    begin(2);
    name(file);
    name(target);
    append_le(bytes_, offset);
    append_le(bytes_, size);
    end();
  }
  // Makes the bytes from `start` on sum up to 0 by the byte at `offset`, which is 0 before.
  void add_checksum(std::string_view file, uint32_t offset, uint32_t start, uint32_t length) {
    begin(3);
    name(file);
    append_le(bytes_, offset);
    append_le(bytes_, start);
    append_le(bytes_, length);
    end();
  }
  [[nodiscard]] std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  static constexpr size_t entry_size = 128, name_size = 56;

  void begin(uint32_t command) { append_le(bytes_, command); }
  void name(std::string_view text) {
    CAISSON_CHECK(text.size() < name_size);
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    bytes_.insert(bytes_.end(), name_size - text.size(), 0);
  }
  void end() { bytes_.resize((bytes_.size() + entry_size - 1) / entry_size * entry_size); }

  std::vector<uint8_t> bytes_;
};

// ACPI 6.5, 5.2.5.3
constexpr uint32_t rsdp_checksum = 8, rsdp_short_size = 20, rsdp_rsdt = 16, rsdp_xsdt = 24, rsdp_extended_checksum = 32,
                   rsdp_size = 36;

}  // namespace

std::vector<uint8_t> e820(const GuestMemory& memory) {
  std::vector<uint8_t> out;
  const auto add = [&](Gpa base, uint64_t size) {
    append_le<uint64_t>(out, base);
    append_le<uint64_t>(out, size);
    append_le(out, static_cast<uint32_t>(MemoryType::Ram));
  };
  add(0, memory.low_size());
  if (memory.high_size() != 0) add(GuestMemory::high_start, memory.high_size());
  return out;
}

AcpiFiles acpi_files(const AcpiConfig& config) {
  const acpi::Tables built = acpi::build(config, acpi::facs_size, 0);
  AcpiFiles out;
  out.tables = built.facs;
  out.tables.insert(out.tables.end(), built.tables.begin(), built.tables.end());
  out.rsdp = built.rsdp;

  constexpr auto base = static_cast<uint32_t>(acpi::facs_size);
  Loader loader;
  loader.allocate(rsdp_file, 16, Loader::f_segment);
  loader.allocate(tables_file, 64, Loader::high);
  for (const auto& pointer : built.pointers) {
    loader.add_pointer(tables_file, tables_file, base + pointer.offset, static_cast<uint8_t>(pointer.size));
  }
  loader.add_pointer(rsdp_file, tables_file, rsdp_rsdt, 4);
  loader.add_pointer(rsdp_file, tables_file, rsdp_xsdt, 8);
  // OVMF's checksum is over what stands in the checksum's place, too: zero there.
  for (const auto& table : built.each) {
    out.tables[base + table.offset + acpi::checksum_offset] = 0;
    loader.add_checksum(tables_file, base + table.offset + acpi::checksum_offset, base + table.offset, table.size);
  }
  out.rsdp[rsdp_checksum] = out.rsdp[rsdp_extended_checksum] = 0;
  loader.add_checksum(rsdp_file, rsdp_checksum, 0, rsdp_short_size);
  loader.add_checksum(rsdp_file, rsdp_extended_checksum, 0, rsdp_size);
  out.loader = loader.take();
  return out;
}

std::vector<uint8_t> boot_order(const std::vector<BootDevice>& devices) {
  std::string text;
  for (const BootDevice& device : devices) {
    // SeaBIOS compares unit addresses, not names; OVMF compares both.
    if (device.nvme) {
      text += fmt::format("/pci@i0cf8/pci8086,5845@{:x}/namespace@1,0\n", device.slot);
    } else if (device.usb_port != 0) {
      text += fmt::format("/pci@i0cf8/usb@{:x}/storage@{:x}/channel@0/disk@0,0\n", device.slot, device.usb_port);
    } else if (device.port < 0) {
      text += fmt::format("/pci@i0cf8/scsi@{:x}/disk@0,0\n", device.slot);
    } else {
      text += fmt::format("/pci@i0cf8/pci8086,2922@{:x}/drive@{:x}/disk@0\n", device.slot, device.port);
    }
  }
  std::vector<uint8_t> out(text.begin(), text.end());
  if (!out.empty()) out.back() = 0;
  return out;
}

}  // namespace caisson::boot::firmware
