// Pictures as PNG files.
//   Spec     W3C Portable Network Graphics (Third Edition): signature, IHDR, IDAT, IEND; 8 bits RGB, no filter
//   Threads  pure function
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace caisson {

// `rgb`: 3 × width × height bytes, rows from the top. Neither side is 0 or beyond 65535.
[[nodiscard]] Result<std::vector<uint8_t>> encode_png(unsigned width, unsigned height, std::span<const uint8_t> rgb);

}  // namespace caisson
