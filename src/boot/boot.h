// Fills a fresh machine's memory so that its first CPU can start a kernel: firmware tables, kernel, initrd, command
// line.
//   Threads  one call, before any CPU runs; on a machine reset again, after the memory was cleared
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "boot/acpi/tables.h"
#include "boot/entry_point.h"
#include "boot/linux_boot.h"
#include "boot/memory_map.h"
#include "boot/smbios.h"
#include "memory/guest_memory.h"

namespace caisson::boot {

struct BootConfig {
  int kernel = -1;                     // open files; they stay the caller's, and are read from their beginning
  int initrd = -1;                     // -1: none
  std::string kernel_name = "kernel";  // how messages call them
  std::string initrd_name = "initrd";
  std::string command_line;
  Unpack unpack = Unpack::Host;
  AcpiConfig acpi;  // the number of CPUs stands here
  SmbiosConfig smbios;
  std::optional<FrameBuffer> screen;
  std::vector<MemoryRange> reserved;  // beside ECAM and the APICs, which are taken from `acpi`
};

[[nodiscard]] Result<EntryPoint> load(GuestMemory& memory, const BootConfig& config);

}  // namespace caisson::boot
