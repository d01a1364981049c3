// Bytes that might be instructions which, at CPL 3, tell or do something else on the host than in the guest, and stop
// nobody. A page with any of them is not executed directly.
//   Source   Intel SDM vol. 2 (encodings); docs/decisions/0027-direct-execution.md (those that need no look)
#pragma once

#include <cstdint>
#include <span>

namespace caisson::jit {

[[nodiscard]] bool has_sensitive_code(std::span<const uint8_t> page);

}  // namespace caisson::jit
