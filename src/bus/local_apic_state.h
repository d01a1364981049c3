// What a guest can observe of a CPU's local APIC: the form in which its model and an engine that keeps local APICs
// itself give it to each other, and in which it is saved.
//   Spec     Intel SDM vol. 3, chapter 11; registers hold what a guest reads, reserved bits 0
//   Units    timer_deadline_ns is Clock::now_ns() time; tsc_deadline is Clock::tsc() time, without the CPU's TSC offset
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/fields.h"

namespace caisson {

struct LocalApicState {
  static constexpr size_t lvt_count = 6;  // timer, thermal, performance, LINT0, LINT1, error

  // Bits of `events`; the SIPI's vector stands in bits 15:8.
  static constexpr uint32_t event_init = 1, event_sipi = 2, event_nmi = 4;

  uint64_t apic_base = 0;
  uint32_t tpr = 0;
  uint32_t ldr = 0;
  uint32_t dfr = 0;
  uint32_t svr = 0;
  uint32_t esr = 0;
  uint32_t pending_errors = 0;
  uint64_t icr = 0;
  std::array<uint32_t, lvt_count> lvt{};
  std::array<uint32_t, 8> isr{};
  std::array<uint32_t, 8> tmr{};
  std::array<uint32_t, 8> irr{};
  uint32_t events = 0;  // INIT, SIPI (and its vector), NMI not yet taken
  bool lint0 = false;
  uint32_t initial_count = 0;
  uint32_t divide_configuration = 0;
  uint64_t timer_deadline_ns = 0;  // when the running count reaches 0; 0: not running
  uint64_t tsc_deadline = 0;

  static constexpr auto fields() {
    using fields::row;
    using State = LocalApicState;
    return fields::table<State>(
        row<1>("apic_base", &State::apic_base), row<2>("tpr", &State::tpr), row<3>("ldr", &State::ldr),
        row<4>("dfr", &State::dfr), row<5>("svr", &State::svr), row<6>("esr", &State::esr),
        row<7>("pending_errors", &State::pending_errors), row<8>("icr", &State::icr), row<9>("lvt", &State::lvt),
        row<10>("isr", &State::isr), row<11>("tmr", &State::tmr), row<12>("irr", &State::irr),
        row<13>("events", &State::events), row<14>("lint0", &State::lint0),
        row<15>("initial_count", &State::initial_count), row<16>("divide_configuration", &State::divide_configuration),
        row<17>("timer_deadline_ns", &State::timer_deadline_ns), row<18>("tsc_deadline", &State::tsc_deadline));
  }

  enum class TimerMode : uint8_t { OneShot, Periodic, TscDeadline, Reserved };
  [[nodiscard]] TimerMode timer_mode() const { return static_cast<TimerMode>(lvt[0] >> 17 & 3); }
  // 11.5.4, figure 11-10.
  [[nodiscard]] uint64_t timer_divisor() const {
    const uint32_t code = (divide_configuration & 3) | (divide_configuration >> 1 & 4);
    return code == 7 ? 1 : uint64_t{2} << code;
  }
};

}  // namespace caisson
