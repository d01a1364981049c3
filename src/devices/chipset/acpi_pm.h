// ACPI power management block: fixed events, sleep control, PM timer, one general-purpose event block.
//   Spec     ACPI 6.5, sections 4.8.3 (fixed hardware) and 4.8.4 (general-purpose events)
//   Models   PM1a event and control blocks, power button, 32-bit PM timer with its overflow event, S5, SCI, GPE0
//   Omits    S1-S4 (sleep types other than S5 vanish), SMI_CMD (the machine is always in ACPI mode: SCI_EN reads 1),
//            the global lock, sleep button and RTC wake events
//   Threads  none of its own; called under the device lock
//   Regions  0: PM1a_EVT, 4 bytes; 1: PM1a_CNT, 2 bytes; 2: PM_TMR, 4 bytes; 3: GPE0, 4 bytes
#pragma once

#include <cstdint>
#include <memory>

#include "bus/clock.h"
#include "bus/device.h"
#include "bus/interrupt.h"
#include "bus/power.h"

namespace caisson {

class AcpiPm final : public Device {
 public:
  struct State {
    uint16_t status = 0;
    uint16_t enable = 0;
    uint16_t control = 0;
    uint16_t gpe_status = 0;
    uint16_t gpe_enable = 0;
    uint64_t seen_halves = 0;  // changes of the timer's top bit that are in `status`
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("status", &State::status), row<2>("enable", &State::enable),
                                  row<3>("control", &State::control), row<4>("gpe_status", &State::gpe_status),
                                  row<5>("gpe_enable", &State::gpe_enable), row<6>("seen_halves", &State::seen_halves));
    }
  };

  AcpiPm(InterruptLine& sci, Clock& clock, PowerSink& power);

  [[nodiscard]] std::string_view name() const override { return "acpi-pm"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

  void press_power_button();
  void raise_gpe(unsigned number);  // 0 … 15

 private:
  [[nodiscard]] uint64_t timer_ticks() const;
  void write_control(uint16_t value);
  void account();
  void update();
  void drive();

  InterruptLine& sci_;
  Clock& clock_;
  PowerSink& power_;
  State state_;
  std::unique_ptr<Clock::Timer> timer_;
};

}  // namespace caisson
