// Debug registers: what they match.
#pragma once

#include "jit/interpret/step.h"

namespace caisson::jit {

enum class BreakOn : uint8_t { Execute = 0, Write = 1, Port = 2, ReadWrite = 3 };

// DR6.B0-3 of the enabled breakpoints that an access of `size` bytes at `address` meets. `on`: Execute, Write (also
// meets read/write breakpoints), ReadWrite (a read), Port.
[[nodiscard]] uint32_t breakpoint_hits(const Cpu& cpu, uint64_t address, unsigned size, BreakOn on);

}  // namespace caisson::jit
