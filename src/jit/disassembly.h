// Instructions as text, Intel's syntax.
//   Threads  any
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace caisson::jit {

// The first instruction of `code`, which stands at `address`; `length`: its bytes (1 for what is none, as "db XX").
[[nodiscard]] std::string disassemble(std::span<const uint8_t> code, unsigned code_bits, uint64_t address,
                                      unsigned& length);

}  // namespace caisson::jit
