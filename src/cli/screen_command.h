// `caisson screenshot`, `type`, `click`, `move` and `drag`: the screen, keyboard and pointer of a running machine, by
// its control socket.
//   Threads  main
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace caisson::cli {

// A socket for requests at `path`, for the VMM to listen on; the error names the remedy.
[[nodiscard]] Result<Fd> listen_for_requests(const std::string& path);

// Exit statuses; errors are printed.
[[nodiscard]] int screenshot(const std::string& socket, const std::string& file, bool text);
[[nodiscard]] int type(const std::string& socket, const std::string& text);

struct PointerOptions {
  std::string machine;
  uint32_t x = 0, y = 0;        // pixels from the upper left corner
  uint32_t to_x = 0, to_y = 0;  // of drag
  std::string button = "left";
  bool twice = false;
};
[[nodiscard]] int click(const PointerOptions& options);
[[nodiscard]] int move_pointer(const PointerOptions& options);
[[nodiscard]] int drag(const PointerOptions& options);

}  // namespace caisson::cli
