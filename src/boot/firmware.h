// What firmware gets from the machine as files: memory map, ACPI and SMBIOS tables, boot order.
//   Spec     QEMU docs/specs/fw_cfg.rst; the table loader's commands as SeaBIOS and OVMF take them; boot order as Open
//            Firmware device paths
//   Threads  none
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "boot/acpi/tables.h"
#include "boot/smbios.h"
#include "memory/guest_memory.h"

namespace caisson::boot::firmware {

// File names that firmware asks for.
inline constexpr std::string_view e820_file = "etc/e820", tables_file = "etc/acpi/tables", rsdp_file = "etc/acpi/rsdp",
                                  loader_file = "etc/table-loader", smbios_tables_file = "etc/smbios/smbios-tables",
                                  smbios_anchor_file = "etc/smbios/smbios-anchor", boot_order_file = "bootorder",
                                  serial_console_file = "etc/sercon-port",
                                  vga_rom_file = "pci1234,1111.rom";  // by the ids of devices/display/vga.cpp

// RAM only: the rest is the firmware's.
[[nodiscard]] std::vector<uint8_t> e820(const GuestMemory& memory);

// The tables with offsets in the place of addresses, and the commands that make addresses of them. Sizes depend on the
// number of things that `config` names, not on where they are.
struct AcpiFiles {
  std::vector<uint8_t> tables;  // the FACS first
  std::vector<uint8_t> rsdp;
  std::vector<uint8_t> loader;
};
[[nodiscard]] AcpiFiles acpi_files(const AcpiConfig& config);

// Places of boot disks, first choice first.
struct BootDevice {
  unsigned slot = 0;      // on PCI bus 0
  int port = -1;          // of an AHCI controller; -1: the function is the disk
  bool nvme = false;      // an NVMe controller with one name space
  unsigned usb_port = 0;  // of a USB controller, from 1 on; 0: another device
};
[[nodiscard]] std::vector<uint8_t> boot_order(const std::vector<BootDevice>& devices);

}  // namespace caisson::boot::firmware
