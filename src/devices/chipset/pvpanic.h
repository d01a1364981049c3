// Paravirtual panic notifier on the ISA bus.
//   Spec     QEMU docs/specs/pvpanic.rst
//   Models   the supported-events byte, panicked (bit 0), crash loaded (bit 1: the guest's crash kernel takes over)
//   Threads  none of its own; called under the device lock
//   Regions  0: 1 port
#pragma once

#include <cstdint>

#include "base/log.h"
#include "bus/device.h"
#include "bus/power.h"

namespace caisson {

class Pvpanic final : public Device {
 public:
  static constexpr uint8_t panicked = 1;
  static constexpr uint8_t crash_loaded = 2;

  explicit Pvpanic(PowerSink& power) : power_(power) {}

  [[nodiscard]] std::string_view name() const override { return "pvpanic"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override {}
  void save(fields::Buffer&) const override {}
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  PowerSink& power_;
  log::Limit crash_loaded_seen_;
};

}  // namespace caisson
