// 8254 programmable interval timer, and system control port B.
//   Spec     Intel 8254 data sheet (231164-005); port 0x61: Intel 82371AB (PIIX4), section 7.1.5
//   Models   three counters, modes 0-5, BCD, counter latch, read-back, null count, gate of counter 2 and its output
//   Omits    the speaker. Counter 0's line to the interrupt controllers pulses at each rising edge of its output; the
//            falling edge follows at once where the output would only dip (modes 2-5)
//   Threads  none of its own; called under the device lock
//   Regions  0: four ports (counters 0-2, control word); 1: port 0x61
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "bus/clock.h"
#include "bus/device.h"
#include "bus/interrupt.h"

namespace caisson {

class Pit final : public Device {
 public:
  struct Counter {
    uint32_t reload = 0x10000;   // 1 … 0x10000 (10000 in BCD)
    uint32_t next_reload = 0;    // modes 2, 3: takes over at the end of the period; 0: none
    uint64_t next_start_ns = 0;  // when it does
    uint64_t start_ns = 0;       // when `elapsed` was the truth
    uint64_t elapsed = 0;        // ticks counted before start_ns
    uint16_t latched_count = 0;
    uint8_t latched_status = 0;
    uint8_t write_low = 0;  // the first half of a two-byte write
    uint8_t access = 3;     // RW1:RW0
    uint8_t mode = 3;
    bool bcd = false;
    bool gate = true;
    bool loaded = false;     // a count has been written since the control word
    bool counting = false;   // time passes for it
    bool triggered = false;  // modes 1 and 5: a gate edge has come
    bool write_high_next = false;
    bool read_high_next = false;
    bool count_latched = false;
    bool status_latched = false;

    static constexpr auto fields() {
      using fields::row;
      return fields::table<Counter>(
          row<1>("reload", &Counter::reload), row<2>("next_reload", &Counter::next_reload),
          row<3>("next_start_ns", &Counter::next_start_ns), row<4>("start_ns", &Counter::start_ns),
          row<5>("elapsed", &Counter::elapsed), row<6>("latched_count", &Counter::latched_count),
          row<7>("latched_status", &Counter::latched_status), row<8>("write_low", &Counter::write_low),
          row<9>("access", &Counter::access), row<10>("mode", &Counter::mode), row<11>("bcd", &Counter::bcd),
          row<12>("gate", &Counter::gate), row<13>("loaded", &Counter::loaded), row<14>("counting", &Counter::counting),
          row<15>("triggered", &Counter::triggered), row<16>("write_high_next", &Counter::write_high_next),
          row<17>("read_high_next", &Counter::read_high_next), row<18>("count_latched", &Counter::count_latched),
          row<19>("status_latched", &Counter::status_latched));
    }
  };
  struct State {
    std::array<Counter, 3> counters{};
    uint8_t control_b = 0;  // port 0x61, bits 3:0
    bool irq = false;       // level of counter 0's line
    uint64_t irq_ns = 0;    // next rising edge; 0: none
    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("counters", &State::counters), row<2>("control_b", &State::control_b),
                                  row<3>("irq", &State::irq), row<4>("irq_ns", &State::irq_ns));
    }
  };

  Pit(InterruptLine& line, Clock& clock);

  [[nodiscard]] std::string_view name() const override { return "pit"; }
  uint64_t read(unsigned region, uint64_t offset, unsigned size) override;
  void write(unsigned region, uint64_t offset, unsigned size, uint64_t value) override;
  void reset() override;
  void save(fields::Buffer& out) const override { fields::save(state_, out); }
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in) override;

  [[nodiscard]] bool output(unsigned which);

 private:
  [[nodiscard]] uint64_t ticks(const Counter& counter) const;
  [[nodiscard]] uint16_t count(Counter& counter);
  [[nodiscard]] bool output(Counter& counter);
  void settle(Counter& counter);
  void write_control(uint8_t value);
  void write_counter(unsigned which, uint8_t value);
  void load(unsigned which, uint16_t value);
  [[nodiscard]] uint8_t read_counter(Counter& counter);
  void latch_status(Counter& counter);
  void latch_count(Counter& counter);
  void set_gate(Counter& counter, bool high);
  void schedule();
  void expired();
  void set_irq(bool high);

  InterruptLine& line_;
  Clock& clock_;
  State state_;
  std::unique_ptr<Clock::Timer> timer_;
};

}  // namespace caisson
