// Starts a Linux bzImage at its 64-bit entry.
//   Spec     Linux Documentation/x86/boot.rst, "64-bit Boot Protocol"; Documentation/x86/zero-page.rst
//   Models   setup header, zero page, E820 map, initrd, command line, ACPI RSDP address
//   Unpack   Host: the packed kernel within the bzImage is unpacked here and started at its own 64-bit entry; a guest
//   run in
//            software so saves about a second. The unpacked kernel stays at its default addresses: KASLR, which the
//            bzImage's own unpacker would apply, is lost. Guest: the bzImage unpacks itself, with KASLR.
//   Omits    16- and 32-bit entry, setup_data, EFI hand-over
//   Threads  none; before the guest runs
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "boot/entry_point.h"
#include "boot/kernel_image.h"
#include "boot/memory_map.h"

namespace caisson::boot {

enum class Unpack : uint8_t { Host, Guest };

// What both protocols need beside the kernel.
struct LoadContext {
  int initrd = -1;               // open file, -1 for none
  std::string_view initrd_name;  // for messages
  std::string_view command_line;
  const MemoryMap& map;
  Gpa low_end = 0;  // RAM below 4 GiB that the loader may use ends here
  Gpa rsdp = 0;
};

// Falls back to Unpack::Guest where the host cannot unpack the kernel.
[[nodiscard]] Result<EntryPoint> load_linux(GuestMemory& memory, const BzImage& kernel, Unpack unpack,
                                            const LoadContext& context);

}  // namespace caisson::boot
