#include "boot/boot.h"

#include "boot/kernel_image.h"
#include "boot/low_memory.h"
#include "boot/multiboot_boot.h"
#include "boot/pvh_boot.h"

namespace caisson::boot {

namespace {

// Firmware tables, low memory and a little for the smallest kernel.
constexpr uint64_t least_memory = 8u << 20;

void reserve_devices(MemoryMap& map, const BootConfig& config) {
  if (config.acpi.pci && config.acpi.pci->ecam_base != 0) {
    map.set(config.acpi.pci->ecam_base, uint64_t{config.acpi.pci->buses} << 20, MemoryType::Reserved);
  }
  map.set(config.acpi.io_apic.address, page_size, MemoryType::Reserved);
  map.set(config.acpi.local_apic, page_size, MemoryType::Reserved);
  for (const MemoryRange& range : config.reserved) map.set(range.base, range.size, range.type);
}

// FACS in the last page of low RAM, which stays the firmware's; the other tables right below. Gives their start.
Gpa write_firmware_tables(GuestMemory& memory, MemoryMap& map, const BootConfig& config) {
  const auto round_up = [](uint64_t size) { return (size + page_size - 1) / page_size * page_size; };
  const Gpa facs_at = memory.low_size() - page_size;
  const uint64_t size = round_up(acpi::build(config.acpi, 0, facs_at).tables.size());
  const Gpa tables_at = facs_at - size;
  const acpi::Tables tables = acpi::build(config.acpi, tables_at, facs_at);
  put(memory, tables_at, tables.tables);
  put(memory, facs_at, tables.facs);
  put(memory, acpi::rsdp_address, tables.rsdp);
  map.set(tables_at, size, MemoryType::AcpiReclaim);
  map.set(facs_at, page_size, MemoryType::AcpiNvs);
  put(memory, smbios::address, smbios::build(config.smbios, memory));
  return tables_at;
}

}  // namespace

Result<EntryPoint> load(GuestMemory& memory, const BootConfig& config) {
  const auto file = read_kernel_file(config.kernel);
  if (!file) return with_context(config.kernel_name, file.error());
  const auto kernel = parse_kernel(*file);
  if (!kernel) return with_context(config.kernel_name, kernel.error());
  if (memory.size() < least_memory) {
    return fail("{} MiB of memory are too little to start a kernel; give more --memory", memory.size() >> 20);
  }
  MemoryMap map(memory);
  reserve_devices(map, config);
  LoadContext context{.initrd = config.initrd,
                      .initrd_name = config.initrd_name,
                      .command_line = config.command_line,
                      .map = map,
                      .rsdp = acpi::rsdp_address,
                      .screen = config.screen};
  context.low_end = write_firmware_tables(memory, map, config);
  if (const auto* linux = std::get_if<BzImage>(&*kernel)) {
    return load_linux(memory, *linux, config.unpack, context);
  }
  if (const auto* multiboot = std::get_if<MultibootImage>(&*kernel)) {
    return load_multiboot(memory, *multiboot, context);
  }
  return load_pvh(memory, std::get<ElfImage>(*kernel), context);
}

}  // namespace caisson::boot
