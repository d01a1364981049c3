// How devices and CPUs ask the machine to power off or reset.
#pragma once

#include <cstdint>

namespace caisson {

enum class PowerEvent : uint8_t {
  PowerOff,   // ACPI S5
  Reset,      // reset register, 0xCF9, keyboard controller
  Panic,      // pvpanic: the guest says it has crashed
  DebugExit,  // debug-exit port; `code` is the byte written
  TripleFault,
};

// Any thread, also with the device lock held; returns at once, the machine acts on it soon after.
class PowerSink {
 public:
  virtual ~PowerSink() = default;
  virtual void request(PowerEvent event, uint8_t code = 0) = 0;
};

}  // namespace caisson
