// For tests of the bus: a device that reads as zeroes and does nothing.
#pragma once

#include "bus/device.h"

namespace caisson {

class SilentDevice final : public Device {
 public:
  std::string_view name() const override { return "silent"; }
  uint64_t read(unsigned, uint64_t, unsigned) override { return 0; }
  void write(unsigned, uint64_t, unsigned, uint64_t) override {}
  void reset() override {}
  void save(fields::Buffer&) const override {}
  Result<> restore(std::span<const uint8_t>) override { return {}; }
};

}  // namespace caisson
