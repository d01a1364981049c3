// `caisson vnc`: how to look at a machine's screen, or the connection itself.
//   Threads  main
#pragma once

#include <string>

namespace caisson::cli {

// Exit statuses; errors are printed. `stdio`: standard input and output are a viewer's.
[[nodiscard]] int vnc(const std::string& machine, bool stdio);

}  // namespace caisson::cli
