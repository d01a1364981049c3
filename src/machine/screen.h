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
#include "control/messages.h"
#include "control/vm_config.h"
#include "devices/display/screen.h"
#include "machine/inputs.h"

namespace caisson::machine {

// Writes what the screen shows to a regular file: a PNG, or the characters of a text mode.
[[nodiscard]] Result<> write_screen(const display::Screen& screen, const Fd& file, bool text);

// Types, and uses the pointer, at a pace that firmware follows.
class Typist {
 public:
  // The guest believes to have a keyboard of that layout.
  Typist(Clock& clock, Inputs& inputs, control::KeyboardLayout layout = control::KeyboardLayout::Us);
  // `done` is called when the guest has taken all, or with why not.
  using Done = std::function<void(std::string error)>;
  void type(std::string_view text, Done done);
  // On a screen of this size.
  void point(const control::Point& request, unsigned width, unsigned height, Done done);

 private:
  static constexpr uint64_t pace_ns = 10'000'000;
  static constexpr size_t most_waiting = 65536;
  static constexpr unsigned patience = 1000;  // tries of one step

  // False: the guest does not take it yet.
  using Step = std::function<bool()>;
  struct Job {
    std::deque<Step> steps;
    Done done;
    const char* unwilling;  // what to say of a guest that takes nothing
  };
  void add(Job job);
  void step();

  Clock& clock_;
  Inputs& inputs_;
  const control::KeyboardLayout layout_;
  std::unique_ptr<Clock::Timer> timer_;
  std::deque<Job> jobs_;
  size_t waiting_ = 0;
  unsigned tries_ = 0;
  uint8_t buttons_ = 0;  // that Press has left down
};

}  // namespace caisson::machine
