// Recognises a Multiboot kernel by its header.
//   Spec     Multiboot Specification 0.6.96, 3.1
//   Models   ELF kernels, and any file whose header has addresses (the "a.out kludge")
//   Omits    video modes: a kernel that insists on one is refused
//   Threads  none; the file is untrusted, all its values are checked here, once
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "boot/bytes.h"
#include "boot/elf.h"

namespace caisson::boot {

struct MultibootImage {
  uint32_t entry = 0;
  std::vector<ElfSegment> segments;  // as in ElfImage, below 4 GiB
  uint64_t lowest = 0;
  uint64_t end = 0;
};

// Where the header stands: within the file's first 8 KiB, at a multiple of 4.
[[nodiscard]] std::optional<uint64_t> find_multiboot(Bytes file);
// `header` comes from find_multiboot(). The segments refer to `file`.
[[nodiscard]] Result<MultibootImage> parse_multiboot(Bytes file, uint64_t header);

}  // namespace caisson::boot
