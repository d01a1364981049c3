// `caisson screenshot` and `caisson type`: the screen and keyboard of a running machine, by its control socket.
//   Threads  main
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace caisson::cli {

// A socket for requests at `path`, for the VMM to listen on; the error names the remedy.
[[nodiscard]] Result<Fd> listen_for_requests(const std::string& path);

// Exit statuses; errors are printed.
[[nodiscard]] int screenshot(const std::string& socket, const std::string& file, bool text);
[[nodiscard]] int type(const std::string& socket, const std::string& text);

}  // namespace caisson::cli
