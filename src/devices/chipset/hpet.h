// High precision event timers.
//   Spec     IA-PC HPET Specification 1.0a (sections are its)
//   Models   a main counter of 64 bits at 100 MHz, three timers of 32 or 64 bits, one-shot and periodic, edges and
//   levels,
//            legacy replacement: timers 0 and 1 in the places of the PIT and the RTC
//   Omits    interrupts by messages (FSB)
//   Threads  none of its own; called under the device lock
//   Regions  0: 1 KiB of memory, accesses of 4 and 8 bytes
//   Bounds   a period shorter than 50 µs ticks every 50 µs; ticks that are late by up to 100 ms come one after the
//            other, later ones are lost
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "bus/clock.h"
#include "bus/device.h"
#include "bus/interrupt.h"

namespace caisson {

// A line that can be cut: the level of its source goes on only while it is open.
class GatedLine final : public InterruptLine {
 public:
  explicit GatedLine(InterruptLine& line) : line_(line) {}
  void set(bool high) override {
    high_ = high;
    line_.set(high_ && open_);
  }
  void open(bool open) {
    open_ = open;
    line_.set(high_ && open_);
  }

 private:
  InterruptLine& line_;
  bool high_ = false;
  bool open_ = true;
};

class Hpet final : public Device {
 public:
  static constexpr unsigned timer_count = 3;
  static constexpr uint64_t tick_ns = 10;
  static constexpr uint64_t capabilities = tick_ns * 1'000'000 << 32 | 0x8086u << 16 | 1u << 15 | 1u << 13 |
                                           (timer_count - 1) << 8 | 1;  // the period in femtoseconds, 2.3.4

  struct Timer {
    uint32_t config = 0;  // what can be written of it
    uint64_t comparator = ~uint64_t{0};
    uint64_t period = 0;
    uint64_t due = 0;      // in ticks of Clock::now_ns(): when it fires next
    bool waiting = false;  // it will
    static constexpr auto fields() {
      using fields::row;
      return fields::table<Timer>(row<1>("config", &Timer::config), row<2>("comparator", &Timer::comparator),
                                  row<3>("period", &Timer::period), row<4>("due", &Timer::due),
                                  row<5>("waiting", &Timer::waiting));
    }
  };
  struct State {
    uint32_t config = 0;   // enabled, legacy replacement
    uint32_t status = 0;   // level-triggered timers that ask
    uint64_t counter = 0;  // while halted; while it runs: what it would have been at now_ns() 0
    std::array<Timer, timer_count> timers{};
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("config", &State::config), row<2>("status", &State::status),
                                  row<3>("counter", &State::counter), row<4>("timers", &State::timers));
    }
  };

  // A new source of an interrupt line.
  using LineFactory = std::function<std::unique_ptr<InterruptLine>(unsigned gsi)>;

  // The gates are the PIT's and the RTC's.
  Hpet(Clock& clock, LineFactory lines, GatedLine& pit, GatedLine& rtc);

  [[nodiscard]] std::string_view name() const override { return "hpet"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

 private:
  [[nodiscard]] bool running() const;
  [[nodiscard]] uint64_t now() const { return clock_.now_ns() / tick_ns; }
  [[nodiscard]] uint64_t counter() const { return running() ? state_.counter + now() : state_.counter; }
  [[nodiscard]] uint64_t read_register(uint64_t offset) const;
  void write_register(uint64_t offset, uint64_t value, uint64_t mask);
  void write_config(uint32_t value);
  void write_timer(unsigned index, unsigned offset, uint64_t value, uint64_t mask);
  void connect(unsigned index);
  void connect_all();
  // `passed`: it has just fired, so the same count is a whole round away.
  void schedule(unsigned index, bool passed);
  void schedule_all();
  void arm();
  void expired();
  void fire(unsigned index);
  void drive(unsigned index);

  Clock& clock_;
  const LineFactory lines_;
  GatedLine& pit_;
  GatedLine& rtc_;
  State state_;
  std::array<std::unique_ptr<InterruptLine>, timer_count> wires_;
  std::array<unsigned, timer_count> wired_{};  // to which line
  std::unique_ptr<Clock::Timer> alarm_;
};

}  // namespace caisson
