// The screen and the keyboard of a machine, by requests.
//   Threads  under the device lock
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "bus/clock.h"
#include "control/keys.h"
#include "devices/chipset/keyboard_controller.h"
#include "devices/display/vga.h"

namespace caisson::machine {

// Writes what the screen shows to a regular file: a PNG, or the characters of a text mode.
[[nodiscard]] Result<> write_screen(const display::Vga& vga, const Fd& file, bool text);

// Types at a pace that firmware follows.
class Typist {
 public:
  Typist(Clock& clock, KeyboardController& keyboard);
  // `done` is called when the guest's keyboard has taken all, or with why not.
  void type(std::string_view text, std::function<void(std::string error)> done);

 private:
  static constexpr uint64_t pace_ns = 10'000'000;
  static constexpr size_t most_waiting = 65536;
  static constexpr unsigned patience = 1000;  // tries of one event

  struct Job {
    std::deque<control::KeyEvent> events;
    std::function<void(std::string error)> done;
  };
  void step();

  Clock& clock_;
  KeyboardController& keyboard_;
  std::unique_ptr<Clock::Timer> timer_;
  std::deque<Job> jobs_;
  size_t waiting_ = 0;
  unsigned tries_ = 0;
};

}  // namespace caisson::machine
