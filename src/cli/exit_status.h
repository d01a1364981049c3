// What `caisson` tells its caller by its exit status. The one list; --help prints it, the README repeats it.
//   Threads  constants
#pragma once

#include <cstdint>

#include "control/messages.h"

namespace caisson::cli {

enum ExitStatus : int {
  exit_ok = 0,           // the guest switched itself off; or the command did what it was asked
  exit_failure = 1,      // could not start or go on
  exit_usage = 2,        // the command line is wrong
  exit_panic = 3,        // the guest's kernel panicked
  exit_reset = 4,        // the guest reset itself, with --no-reboot
  exit_stopped = 5,      // stopped from outside: escape key q, a second signal, or caisson-vmm killed
  exit_debug_base = 64,  // 64 + the low six bits of what the guest wrote to the debug-exit port
};

constexpr int debug_exit_status(uint32_t code) { return exit_debug_base + static_cast<int>(code & 63); }

[[nodiscard]] inline int exit_status_of(const control::Exited& exited) {
  using control::ExitReason;
  switch (exited.reason) {
    case ExitReason::PowerOff: return exit_ok;
    case ExitReason::Panic: return exit_panic;
    case ExitReason::Reset: return exit_reset;
    case ExitReason::DebugExit: return debug_exit_status(exited.code);
    case ExitReason::Stopped: return exit_stopped;
    case ExitReason::Failure: break;
  }
  return exit_failure;
}

inline constexpr const char* exit_status_text =
    "Exit status of run:\n"
    "  0  the guest switched itself off\n"
    "  1  failure: could not start or go on\n"
    "  2  wrong usage\n"
    "  3  the guest's kernel panicked\n"
    "  4  the guest reset itself, with --no-reboot\n"
    "  5  stopped from outside: Ctrl-] q, a second SIGTERM or SIGINT, or caisson-vmm was killed\n"
    "  64 to 127  64 + the low six bits of the code the guest wrote to the port of --debug-exit\n";

}  // namespace caisson::cli
