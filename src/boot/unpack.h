// Unpacks a compressed kernel on the host, which is far faster than the same work inside a software-run guest.
//   Models   gzip, xz (with the x86 filter), lzma, zstd, and lz4 in the legacy frame: all that Linux packs a bzImage
//   with
//            but bzip2 and lzo
//   Threads  none; input is untrusted, output is bounded by `limit`
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "boot/bytes.h"

namespace caisson::boot {

// Bytes after the compressed stream (Linux appends the unpacked size) are ignored.
[[nodiscard]] Result<std::vector<uint8_t>> unpack(Bytes packed, uint64_t limit);

}  // namespace caisson::boot
