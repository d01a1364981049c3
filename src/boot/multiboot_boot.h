// Starts a kernel by the Multiboot protocol.
//   Spec     Multiboot Specification 0.6.96, 3.2 (state), 3.3 (information)
//   Models   memory sizes and map, command line, loader's name, the initrd as the one module
//   Omits    drives, symbols, APM, video information
//   Threads  none; before the guest runs
#pragma once

#include "base/result.h"
#include "boot/linux_boot.h"
#include "boot/multiboot_image.h"

namespace caisson::boot {

[[nodiscard]] Result<EntryPoint> load_multiboot(GuestMemory& memory, const MultibootImage& kernel,
                                                const LoadContext& context);

}  // namespace caisson::boot
