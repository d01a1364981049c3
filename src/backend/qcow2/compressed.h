// Compressed clusters: deflate without a wrapper, or a zstd frame.
//   Bounded  never writes more than `to`; needs at most 8 MiB besides, whatever the input says
//   Errors   EIO where the input is not what was compressed to exactly `to.size()` bytes
//   Threads  pure function
#pragma once

#include <cstdint>
#include <span>

#include "backend/qcow2/header.h"

namespace caisson::qcow2 {

// Bytes of `from` behind the compressed data are ignored.
[[nodiscard]] int decompress(Compression compression, std::span<const uint8_t> from, std::span<uint8_t> to);

}  // namespace caisson::qcow2
