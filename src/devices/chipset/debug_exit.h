// Debug exit port: a write ends the machine with the written byte as its code. For tests; mapped only on request.
//   Threads  none of its own; called under the device lock
//   Regions  0: 4 ports; only the lowest byte of a write counts. Reads give 0.
#pragma once

#include "bus/device.h"
#include "bus/power.h"

namespace caisson {

class DebugExit final : public Device {
 public:
  explicit DebugExit(PowerSink& power) : power_(power) {}

  [[nodiscard]] std::string_view name() const override { return "debug-exit"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override {}
  void save(fields::Buffer&) const override {}
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  PowerSink& power_;
};

}  // namespace caisson
