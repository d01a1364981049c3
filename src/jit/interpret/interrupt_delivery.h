// Taking an interrupt or exception through the IVT or IDT.
#pragma once

#include "jit/interpret/interpreter.h"
#include "jit/interpret/step.h"

namespace caisson::jit {

struct Event {
  uint8_t vector = 0;
  bool software = false;  // INT n, INT3, INTO: the gate's DPL is checked, EXT is 0 in error codes
  bool has_error = false;
  uint32_t error = 0;
  bool resume = false;  // a fault: RF is set in the pushed flags
};

// Enters the handler of `event`, returning to cpu.rip. False: another fault is raised instead, nothing changed (but
// after a task switch).
[[nodiscard]] bool deliver_event(Cpu& cpu, const Event& event);

// A #DB trap (single step, data breakpoint) between two instructions; `cause`: DR6 bits to set.
[[nodiscard]] StepResult deliver_debug_trap(Cpu& cpu, uint32_t cause);

}  // namespace caisson::jit
