// Writes all of it.
//   Errors   an errno value; 0: done. What was written before an error stays.
//   Threads  any
#pragma once

#include <string_view>

namespace caisson {

[[nodiscard]] int write_all(int fd, std::string_view bytes);

}  // namespace caisson
