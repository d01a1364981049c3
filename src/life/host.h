// What machines get unless something else was said, and what this host has for them.
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::life {

// The kernel command line: `defaults`, then `extra`, then what the console and the report of panics need, unless the
// user said otherwise. A guest whose kernel panics resets at once (panic=-1), which is how its end is noticed.
[[nodiscard]] Result<std::string> command_line(std::string_view defaults, std::string_view extra);

[[nodiscard]] uint64_t host_memory_bytes();  // 0: not known
// For a machine of which nobody said how much: 1 GiB, or half of the memory of a host that has less than that.
[[nodiscard]] uint64_t usual_memory(uint64_t host_bytes);
[[nodiscard]] unsigned host_cpus();

// Of a machine that was made from an image: where its root is.
inline constexpr std::string_view image_command_line = "root=/dev/vda rw";

}  // namespace caisson::life
