// Starts an ELF kernel by the PVH protocol.
//   Spec     Xen docs/misc/pvh.pandoc; xen/include/public/arch-x86/hvm/start_info.h
//   Models   start info version 1: command line, memory map, RSDP, the initrd as first module
//   Threads  none; before the guest runs
#pragma once

#include "base/result.h"
#include "boot/elf.h"
#include "boot/linux_boot.h"

namespace caisson::boot {

[[nodiscard]] Result<EntryPoint> load_pvh(GuestMemory& memory, const ElfImage& kernel, const LoadContext& context);

}  // namespace caisson::boot
