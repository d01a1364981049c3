// Starts a Linux bzImage at its 64-bit entry.
//   Spec     Linux Documentation/x86/boot.rst, "64-bit Boot Protocol"; Documentation/x86/zero-page.rst
//   Models   setup header, zero page, E820 map, initrd, command line, ACPI RSDP address, a linear frame buffer
//   Unpack   Host: the packed kernel within the bzImage is unpacked here and started at its own 64-bit entry; a guest
//   run in
//            software so saves about a second. The unpacked kernel stays at its default addresses: KASLR, which the
//            bzImage's own unpacker would apply, is lost. Guest: the bzImage unpacks itself, with KASLR.
//   Omits    16- and 32-bit entry, setup_data, EFI hand-over
//   Threads  none; before the guest runs
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "boot/entry_point.h"
#include "boot/kernel_image.h"
#include "boot/memory_map.h"

namespace caisson::boot {

enum class Unpack : uint8_t { Host, Guest };

// A screen that the kernel can draw to before it has a driver: 32 bits a pixel, 8 each of blue, green, red and nothing.
struct FrameBuffer {
  uint64_t base = 0;
  uint16_t width = 0, height = 0;  // pixels; rows lie one after the other
};

// What both protocols need beside the kernel.
struct LoadContext {
  int initrd = -1;               // open file, -1 for none
  std::string_view initrd_name;  // for messages
  std::string_view command_line;
  const MemoryMap& map;
  Gpa low_end = 0;  // RAM below 4 GiB that the loader may use ends here
  Gpa rsdp = 0;
  std::optional<FrameBuffer> screen{};  // a PVH kernel cannot be told of it
};

// Falls back to Unpack::Guest where the host cannot unpack the kernel.
[[nodiscard]] Result<EntryPoint> load_linux(GuestMemory& memory, const BzImage& kernel, Unpack unpack,
                                            const LoadContext& context);

}  // namespace caisson::boot
