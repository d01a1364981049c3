// MC146818 real-time clock with 128 bytes of CMOS memory.
//   Spec     Motorola MC146818A data sheet (1988); CMOS memory map as PC firmware lays it out
//   Models   time of day from the guest's wall clock, 12/24 hours, BCD and binary, SET, divider reset, update in
//   progress,
//            alarm, periodic and update-ended interrupts, century register (0x32), memory size bytes
//   Omits    daylight saving, square wave output, NMI mask (port 0x70 bit 7)
//   Threads  none of its own; called under the device lock
//   Regions  0: index and data port
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "bus/clock.h"
#include "bus/device.h"
#include "bus/interrupt.h"

namespace caisson {

class Rtc final : public Device {
 public:
  struct State {
    uint8_t index = 0;
    std::array<uint8_t, 128> cmos{};
    int64_t offset_s = 0;     // clock's seconds minus the wall clock's
    uint64_t phase_ns = 0;    // what the divider is ahead of the wall clock's second
    int64_t seen_s = 0;       // seconds up to here are in the flags of register C
    uint64_t seen_ticks = 0;  // and 32768 Hz ticks
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("index", &State::index), row<2>("cmos", &State::cmos),
                                  row<3>("offset_s", &State::offset_s), row<4>("phase_ns", &State::phase_ns),
                                  row<5>("seen_s", &State::seen_s), row<6>("seen_ticks", &State::seen_ticks));
    }
  };

  Rtc(InterruptLine& line, Clock& clock);

  [[nodiscard]] std::string_view name() const override { return "rtc"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  // The RESET pin: the battery keeps time and memory.
  void reset() override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

  // The memory size bytes that firmware leaves: RAM below 4 GiB and above it.
  void set_memory_size(uint64_t low, uint64_t high);
  // A byte of the battery-backed memory (14 to 127), as set-up left it.
  void set_cmos(uint8_t index, uint8_t value) { state_.cmos[index & 0x7f] = value; }

 private:
  [[nodiscard]] bool running() const;
  [[nodiscard]] int64_t now_s() const;
  [[nodiscard]] uint64_t into_second_ns() const;
  [[nodiscard]] uint64_t now_ticks() const;
  [[nodiscard]] uint8_t encode(unsigned value) const;
  [[nodiscard]] unsigned decode(uint8_t value) const;
  [[nodiscard]] uint8_t encode_hour(unsigned hour) const;
  [[nodiscard]] unsigned decode_hour(uint8_t value) const;
  [[nodiscard]] bool alarm_matches(int64_t second) const;
  void show_time();
  void take_time();
  void resume(bool divider_was_reset);
  void write_data(uint8_t value);
  [[nodiscard]] uint8_t read_data();
  void account();
  void update();
  void schedule();

  InterruptLine& line_;
  Clock& clock_;
  State state_;
  std::unique_ptr<Clock::Timer> timer_;
};

}  // namespace caisson
