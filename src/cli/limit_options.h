// The words for limits: "bps=50M", "iops=1000", "50%".
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "control/limits.h"

namespace caisson::cli {

// Takes one word into `limit`; false: it is none of a limit. `option` begins errors, `operations` is what counts them:
// "iops", "pps".
[[nodiscard]] Result<bool> take_rate(std::string_view option, std::string_view operations, std::string_view word,
                                     control::RateLimit& limit);

// "DISK,bps=50M,iops=1000" with one of the words or both, or "DISK,none"; which disk, is for others to find out.
[[nodiscard]] Result<control::DiskLimit> parse_disk_limit(std::string_view text);
// "bps=10M,pps=5000", one of the words or both, or "none"
[[nodiscard]] Result<control::RateLimit> parse_net_limit(std::string_view text);

// "50%" of one of the host's CPUs, "150%" of two, "none" (which is 0).
[[nodiscard]] Result<uint32_t> parse_cpu_cap(std::string_view text);
[[nodiscard]] Result<uint32_t> parse_cpu_share(std::string_view text);
// "256M", as --memory.
[[nodiscard]] Result<uint64_t> parse_memory_now(std::string_view text);

}  // namespace caisson::cli
