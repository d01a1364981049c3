#include "devices/chipset/pit.h"

#include <algorithm>
#include <utility>

#include "devices/chipset/layout.h"
#include "devices/chipset/scale.h"

namespace caisson {
namespace {

using chipset::ns_per_s;
using chipset::pit_hz;

enum Region : unsigned { Counters, SystemControlB };
constexpr uint64_t control_word_port = 3;

constexpr uint32_t largest_count = 0x10000;
constexpr uint32_t bcd_modulus = 10000;

// Status byte (figure 12 of the data sheet).
constexpr uint8_t status_output = 0x80;
constexpr uint8_t status_null_count = 0x40;

// Port 0x61.
constexpr uint8_t control_b_gate2 = 0x01;
constexpr uint8_t control_b_writable = 0x0f;
constexpr uint8_t control_b_refresh = 0x10;
constexpr uint8_t control_b_output2 = 0x20;
constexpr uint64_t refresh_half_ns = 15'085;

// The guest chooses the period, the host pays for it: faster interrupts come at this rate.
constexpr uint64_t shortest_interval_ns = 50'000;

bool periodic(uint8_t mode) { return mode == 2 || mode == 3; }
bool needs_trigger(uint8_t mode) { return mode == 1 || mode == 5; }

uint32_t from_bcd(uint16_t value) {
  return (value & 0xfu) + (value >> 4 & 0xfu) * 10 + (value >> 8 & 0xfu) * 100 + (value >> 12 & 0xfu) * 1000;
}

uint16_t to_bcd(uint32_t value) {
  return static_cast<uint16_t>(value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 | value / 1000 % 10 << 12);
}

}  // namespace

Pit::Pit(InterruptLine& line, Clock& clock)
    : line_(line), clock_(clock), timer_(clock.create_timer([this] { expired(); })) {
  state_.counters[2].gate = false;
}

void Pit::reset() {
  timer_->cancel();
  state_ = State{};
  state_.counters[2].gate = false;
  line_.set(false);
}

Result<> Pit::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  for (const Counter& counter : state.counters) {
    if (counter.mode > 5 || counter.access < 1 || counter.access > 3 || counter.reload < 1 ||
        counter.reload > largest_count || counter.next_reload > largest_count || counter.elapsed >> 62 != 0) {
      return fail("pit: a saved counter has an impossible value; the snapshot is damaged");
    }
  }
  if ((state.control_b & ~control_b_writable) != 0) return fail("pit: the saved port 0x61 has reserved bits set");
  state_ = state;
  timer_->cancel();
  if (state_.irq_ns != 0) timer_->arm(state_.irq_ns);
  line_.set(state_.irq);
  return {};
}

uint64_t Pit::read(unsigned region, uint64_t offset, unsigned) {
  if (region == SystemControlB) {
    uint8_t value = state_.control_b;
    if ((clock_.now_ns() / refresh_half_ns & 1) != 0) value |= control_b_refresh;
    if (output(2)) value |= control_b_output2;
    return value;
  }
  return offset < control_word_port ? read_counter(state_.counters[offset]) : 0xff;
}

void Pit::write(unsigned region, uint64_t offset, unsigned, uint64_t value) {
  const auto byte = static_cast<uint8_t>(value);
  if (region == SystemControlB) {
    state_.control_b = byte & control_b_writable;
    set_gate(state_.counters[2], (byte & control_b_gate2) != 0);
    return;
  }
  if (offset < control_word_port) {
    write_counter(static_cast<unsigned>(offset), byte);
  } else {
    write_control(byte);
  }
}

void Pit::write_control(uint8_t value) {
  const unsigned which = value >> 6;
  if (which == 3) {  // read-back command: 0 selects
    for (unsigned i = 0; i < 3; ++i) {
      if ((value >> (i + 1) & 1) == 0) continue;
      if ((value & 0x20) == 0) latch_count(state_.counters[i]);
      if ((value & 0x10) == 0) latch_status(state_.counters[i]);
    }
    return;
  }
  Counter& counter = state_.counters[which];
  const uint8_t access = value >> 4 & 3;
  if (access == 0) {
    latch_count(counter);
    return;
  }
  const uint8_t mode = value >> 1 & 7;
  Counter fresh;
  fresh.gate = counter.gate;
  fresh.access = access;
  fresh.mode = mode > 5 ? mode & 3 : mode;  // 6 and 7 are 2 and 3
  fresh.bcd = (value & 1) != 0;
  counter = fresh;
  if (which == 0) schedule();
}

void Pit::write_counter(unsigned which, uint8_t value) {
  Counter& counter = state_.counters[which];
  switch (counter.access) {
    case 1: load(which, value); break;
    case 2: load(which, static_cast<uint16_t>(value << 8)); break;
    default:
      if (!counter.write_high_next) {
        counter.write_low = value;
        counter.write_high_next = true;
        if (counter.mode == 0) {  // the first byte stops the count and lowers the output
          counter.loaded = counter.counting = false;
          if (which == 0) schedule();
        }
      } else {
        counter.write_high_next = false;
        load(which, static_cast<uint16_t>(counter.write_low | value << 8));
      }
      break;
  }
}

void Pit::load(unsigned which, uint16_t value) {
  Counter& counter = state_.counters[which];
  settle(counter);
  uint32_t reload = counter.bcd ? from_bcd(value) : value;
  if (reload == 0) reload = counter.bcd ? bcd_modulus : largest_count;
  const uint64_t now = clock_.now_ns();
  if (periodic(counter.mode) && counter.counting) {
    // The running period ends first.
    const uint64_t left = counter.reload - ticks(counter) % counter.reload;
    counter.next_reload = reload;
    counter.next_start_ns = now + chipset::scale_up(left, ns_per_s, pit_hz);
  } else if (needs_trigger(counter.mode)) {
    if (counter.triggered) {
      counter.next_reload = reload;
    } else {
      counter.reload = reload;
    }
  } else {
    counter.reload = reload;
    counter.elapsed = 0;
    counter.start_ns = now;
    counter.counting = counter.gate;
  }
  counter.loaded = true;
  if (which == 0) schedule();
}

void Pit::set_gate(Counter& counter, bool high) {
  if (counter.gate == high) return;
  settle(counter);
  const uint64_t now = clock_.now_ns();
  if (needs_trigger(counter.mode)) {
    if (high && counter.loaded) {
      if (counter.next_reload != 0) counter.reload = std::exchange(counter.next_reload, 0);
      counter.elapsed = 0;
      counter.start_ns = now;
      counter.triggered = counter.counting = true;
    }
  } else if (high) {
    if (periodic(counter.mode)) {
      if (counter.next_reload != 0) counter.reload = std::exchange(counter.next_reload, 0);
      counter.elapsed = 0;
    }
    counter.start_ns = now;
    counter.counting = counter.loaded;
  } else {
    counter.elapsed = ticks(counter);
    counter.counting = false;
  }
  counter.gate = high;
}

uint64_t Pit::ticks(const Counter& counter) const {
  const uint64_t now = clock_.now_ns();
  if (!counter.counting || now <= counter.start_ns) return counter.elapsed;
  return counter.elapsed + chipset::scale(now - counter.start_ns, pit_hz, ns_per_s);
}

// Lets a count that waits for the end of the period take over.
void Pit::settle(Counter& counter) {
  if (!periodic(counter.mode) || counter.next_reload == 0 || clock_.now_ns() < counter.next_start_ns) return;
  counter.reload = std::exchange(counter.next_reload, 0);
  counter.elapsed = 0;
  counter.start_ns = counter.next_start_ns;
}

uint16_t Pit::count(Counter& counter) {
  settle(counter);
  const uint64_t passed = ticks(counter);
  const uint32_t modulus = counter.bcd ? bcd_modulus : largest_count;
  uint64_t value = counter.reload;
  switch (counter.mode) {
    case 2: value = counter.reload - passed % counter.reload; break;
    case 3: value = (counter.reload - passed * 2 % counter.reload) & ~uint64_t{1}; break;
    default: value = (counter.reload + modulus - passed % modulus) % modulus; break;
  }
  value %= modulus;
  return counter.bcd ? to_bcd(static_cast<uint32_t>(value)) : static_cast<uint16_t>(value);
}

bool Pit::output(Counter& counter) {
  if (!counter.loaded) return counter.mode != 0;
  settle(counter);
  const uint64_t passed = ticks(counter);
  switch (counter.mode) {
    case 0: return passed >= counter.reload;
    case 1: return !counter.triggered || passed >= counter.reload;
    case 2: return !counter.gate || passed % counter.reload != counter.reload - 1u;
    case 3: return !counter.gate || passed % counter.reload < (counter.reload + 1u) / 2;
    case 4: return passed != counter.reload;
    default: return !counter.triggered || passed != counter.reload;
  }
}

bool Pit::output(unsigned which) { return output(state_.counters[which]); }

void Pit::latch_count(Counter& counter) {
  if (counter.count_latched) return;  // the first latch holds until it is read
  counter.latched_count = count(counter);
  counter.count_latched = true;
}

void Pit::latch_status(Counter& counter) {
  if (counter.status_latched) return;
  const bool null_count = !counter.loaded || counter.next_reload != 0;
  counter.latched_status =
      static_cast<uint8_t>((output(counter) ? status_output : 0) | (null_count ? status_null_count : 0) |
                           counter.access << 4 | counter.mode << 1 | (counter.bcd ? 1 : 0));
  counter.status_latched = true;
}

uint8_t Pit::read_counter(Counter& counter) {
  if (counter.status_latched) {
    counter.status_latched = false;
    return counter.latched_status;
  }
  const uint16_t value = counter.count_latched ? counter.latched_count : count(counter);
  const bool high = counter.access == 2 || (counter.access == 3 && counter.read_high_next);
  const bool last = counter.access != 3 || high;
  if (counter.access == 3) counter.read_high_next = !counter.read_high_next;
  if (last) counter.count_latched = false;
  return static_cast<uint8_t>(high ? value >> 8 : value);
}

void Pit::set_irq(bool high) {
  state_.irq = high;
  line_.set(high);
}

// Finds the next rising edge of counter 0's output. Its gate is tied high.
void Pit::schedule() {
  Counter& counter = state_.counters[0];
  settle(counter);
  const uint64_t now = clock_.now_ns();
  state_.irq_ns = 0;
  const auto at_tick = [&](uint64_t tick) {
    return counter.start_ns + chipset::scale_up(tick - counter.elapsed, ns_per_s, pit_hz);
  };
  if (counter.mode == 0) {
    set_irq(output(counter));
    if (counter.counting && !state_.irq) state_.irq_ns = at_tick(counter.reload);
  } else if (!counter.counting) {
    set_irq(true);
  } else if (periodic(counter.mode)) {
    const uint64_t boundary = (ticks(counter) / counter.reload + 1) * counter.reload;
    state_.irq_ns = counter.next_reload != 0 ? counter.next_start_ns : at_tick(boundary);
  } else if (counter.mode == 4 && ticks(counter) <= counter.reload) {
    state_.irq_ns = at_tick(uint64_t{counter.reload} + 1);
  }
  if (state_.irq_ns == 0) {
    timer_->cancel();
    return;
  }
  state_.irq_ns = std::max(state_.irq_ns, now + shortest_interval_ns);
  timer_->arm(state_.irq_ns);
}

void Pit::expired() {
  if (state_.irq_ns == 0) return;
  if (clock_.now_ns() < state_.irq_ns) {
    timer_->arm(state_.irq_ns);
    return;
  }
  // Edges that were missed (a stalled host) come as one.
  set_irq(false);
  set_irq(true);
  schedule();
}

}  // namespace caisson
