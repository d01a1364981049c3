// The chipset's two reset ports: reset control (0xCF9, also ACPI's reset register) and system control port A (0x92).
//   Spec     Intel 82371AB (PIIX4), sections 7.1.6.1 (RC) and 7.1.5 (port 92); IBM PS/2 for port 92
//   Models   hard and soft reset by the rising edge of RST_CPU, fast reset, the A20 bit as a bit
//   Omits    the difference between hard and soft reset (both reset the machine), the A20 gate itself: A20 is never
//   masked Threads  none of its own; called under the device lock Regions  0: port 0xCF9; 1: port 0x92
#pragma once

#include <cstdint>

#include "bus/device.h"
#include "bus/power.h"

namespace caisson {

class ResetControl final : public Device {
 public:
  struct State {
    uint8_t reset_control = 0;
    uint8_t system_control_a = 2;  // A20 on
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("reset_control", &State::reset_control),
                                  row<2>("system_control_a", &State::system_control_a));
    }
  };

  explicit ResetControl(PowerSink& power) : power_(power) {}

  [[nodiscard]] std::string_view name() const override { return "reset-control"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override { state_ = State{}; }
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  PowerSink& power_;
  State state_;
};

}  // namespace caisson
