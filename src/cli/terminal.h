// The user's terminal: raw while a console is attached, and back as it was whatever happens: normal end, signals (those
// that stop and those that kill), and crashes of this process. Only SIGKILL cannot be caught.
//   Threads  main thread only; the crash handlers run anywhere and use only async-signal-safe calls
#pragma once

#include <cstdint>
#include <optional>

namespace caisson::cli {

struct WindowSize {
  uint32_t columns = 80;
  uint32_t rows = 25;
  bool operator==(const WindowSize&) const = default;
};

class Terminal {
 public:
  // On standard input, if that is a terminal. At most one at a time.
  Terminal();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  [[nodiscard]] bool present() const { return present_; }
  [[nodiscard]] bool raw() const { return raw_; }
  // Raw if this process is in the terminal's foreground; a background process leaves it alone.
  void enter();
  void leave();
  [[nodiscard]] bool foreground() const;
  [[nodiscard]] std::optional<WindowSize> size() const;

 private:
  bool present_ = false;
  bool raw_ = false;
};

}  // namespace caisson::cli
