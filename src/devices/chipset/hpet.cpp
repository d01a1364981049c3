#include "devices/chipset/hpet.h"

#include <algorithm>
#include <optional>

#include "devices/chipset/layout.h"

namespace caisson {
namespace {

// 2.3.2, table 2; a timer's registers follow every 32 bytes.
constexpr uint64_t general_capabilities = 0x00, general_config = 0x10, general_status = 0x20, main_counter = 0xf0,
                   timers_offset = 0x100;
constexpr unsigned timer_size = 0x20, timer_config = 0x00, timer_comparator = 0x08;

constexpr uint32_t config_enabled = 1u << 0, config_legacy = 1u << 1;
// 2.3.8
constexpr uint32_t timer_level = 1u << 1, timer_interrupts = 1u << 2, timer_periodic = 1u << 3,
                   timer_sets_value = 1u << 6, timer_32_bits = 1u << 8, timer_route = 31u << 9;
constexpr unsigned timer_route_shift = 9;
constexpr uint32_t timer_writable =
    timer_level | timer_interrupts | timer_periodic | timer_sets_value | timer_32_bits | timer_route;
// Periodic and 64 bits, all of them. Routes are to the inputs that PCI's pins share, which are nobody's edges.
constexpr uint32_t timer_abilities = 1u << 4 | 1u << 5;
constexpr uint32_t possible_routes = 0x00f0'0000;

constexpr uint64_t least_distance = 50'000 / Hpet::tick_ns, most_behind = 100'000'000 / Hpet::tick_ns;
// What is further away than this (2,900 years) never comes.
constexpr uint64_t never = uint64_t{1} << 63;

constexpr uint64_t merged(uint64_t old, uint64_t value, uint64_t mask) { return (old & ~mask) | (value & mask); }

constexpr uint64_t width_mask(const Hpet::Timer& timer) {
  return (timer.config & timer_32_bits) != 0 ? 0xffff'ffff : ~uint64_t{0};
}

}  // namespace

Hpet::Hpet(Clock& clock, LineFactory lines, GatedLine& pit, GatedLine& rtc)
    : clock_(clock), lines_(std::move(lines)), pit_(pit), rtc_(rtc), alarm_(clock.create_timer([this] { expired(); })) {
  connect_all();
}

void Hpet::reset() {
  state_ = {};
  connect_all();
  arm();
}

bool Hpet::running() const { return (state_.config & config_enabled) != 0; }

// --- Registers, 2.3 ---

uint64_t Hpet::read(unsigned, uint64_t offset, unsigned size) {
  const uint64_t whole = read_register(offset & ~uint64_t{7});
  return size == 8 ? whole : whole >> (8 * (offset & 4)) & 0xffff'ffff;
}

void Hpet::write(unsigned, uint64_t offset, unsigned size, uint64_t value) {
  const unsigned shift = size == 8 ? 0 : 8 * static_cast<unsigned>(offset & 4);
  const uint64_t mask = size == 8 ? ~uint64_t{0} : uint64_t{0xffff'ffff} << shift;
  write_register(offset & ~uint64_t{7}, value << shift, mask);
}

uint64_t Hpet::read_register(uint64_t offset) const {
  switch (offset) {
    case general_capabilities: return capabilities;
    case general_config: return state_.config;
    case general_status: return state_.status;
    case main_counter: return counter();
    default: break;
  }
  const uint64_t index = (offset - timers_offset) / timer_size;
  if (offset < timers_offset || index >= timer_count) return 0;
  const Timer& timer = state_.timers[index];
  switch (offset % timer_size) {
    case timer_config: return timer.config | timer_abilities | uint64_t{possible_routes} << 32;
    case timer_comparator: return timer.comparator & width_mask(timer);
    default: return 0;
  }
}

void Hpet::write_register(uint64_t offset, uint64_t value, uint64_t mask) {
  switch (offset) {
    case general_config: write_config(static_cast<uint32_t>(merged(state_.config, value, mask))); return;
    case general_status:
      state_.status &= static_cast<uint32_t>(~(value & mask));
      for (unsigned i = 0; i < timer_count; ++i) drive(i);
      return;
    case main_counter: {
      // 2.3.7: software halts it first; what it writes while it runs is heeded as well.
      const uint64_t fresh = merged(counter(), value, mask);
      state_.counter = running() ? fresh - now() : fresh;
      schedule_all();
      return;
    }
    default: break;
  }
  const uint64_t index = (offset - timers_offset) / timer_size;
  if (offset < timers_offset || index >= timer_count) return;
  write_timer(static_cast<unsigned>(index), offset % timer_size, value, mask);
}

void Hpet::write_config(uint32_t value) {
  const uint64_t count = counter();
  state_.config = value & (config_enabled | config_legacy);
  state_.counter = running() ? count - now() : count;
  connect_all();
  schedule_all();
}

void Hpet::write_timer(unsigned index, unsigned offset, uint64_t value, uint64_t mask) {
  Timer& timer = state_.timers[index];
  if (offset == timer_config) {
    timer.config = static_cast<uint32_t>(merged(timer.config, value, mask)) & timer_writable;
    if ((possible_routes >> (timer.config >> timer_route_shift & 31) & 1) == 0) timer.config &= ~timer_route;
    if ((timer.config & timer_32_bits) != 0) timer.comparator &= 0xffff'ffff;
    if ((timer.config & timer_level) == 0) state_.status &= ~(1u << index);
    connect(index);
  } else if (offset == timer_comparator) {
    // 2.3.9.2.2: of a periodic timer the period is written, and the comparator too if that was asked for before.
    const bool periodic = (timer.config & timer_periodic) != 0;
    if (!periodic || (timer.config & timer_sets_value) != 0) {
      timer.comparator = merged(timer.comparator, value, mask) & width_mask(timer);
    }
    if (periodic) timer.period = merged(timer.period, value, mask) & width_mask(timer);
    if ((mask & 1) != 0) timer.config &= ~timer_sets_value;
  } else {
    return;
  }
  schedule(index, false);
  arm();
}

// --- Lines, 2.3.5 and 2.4.2.3 ---

void Hpet::connect_all() {
  const bool legacy = (state_.config & config_legacy) != 0;
  pit_.open(!legacy);
  rtc_.open(!legacy);
  for (unsigned i = 0; i < timer_count; ++i) connect(i);
}

void Hpet::connect(unsigned index) {
  const bool legacy = (state_.config & config_legacy) != 0 && index < 2;
  const unsigned route = state_.timers[index].config >> timer_route_shift & 31;
  const unsigned gsi = legacy ? (index == 0 ? chipset::pit_irq : chipset::rtc_irq) : route;
  const bool none = !legacy && route == 0;
  if (none) {
    wires_[index].reset();
  } else if (wires_[index] == nullptr || wired_[index] != gsi) {
    wires_[index] = lines_(gsi);
    wired_[index] = gsi;
  }
  drive(index);
}

void Hpet::drive(unsigned index) {
  const bool asks = (state_.status >> index & 1) != 0 && (state_.timers[index].config & timer_interrupts) != 0;
  if (wires_[index] != nullptr) wires_[index]->set(asks);
}

// --- Time ---

void Hpet::schedule(unsigned index, bool passed) {
  Timer& timer = state_.timers[index];
  timer.waiting = false;
  if (!running() || (timer.config & timer_interrupts) == 0) return;
  uint64_t distance = (timer.comparator - counter()) & width_mask(timer);
  if (distance == 0 && passed) {
    if (width_mask(timer) == ~uint64_t{0}) return;
    distance = width_mask(timer) + 1;
  }
  if (distance >= never) return;
  timer.due = now() + distance;
  timer.waiting = true;
}

void Hpet::schedule_all() {
  for (unsigned i = 0; i < timer_count; ++i) schedule(i, false);
  arm();
}

void Hpet::arm() {
  std::optional<uint64_t> first;
  for (const Timer& timer : state_.timers) {
    if (timer.waiting) first = std::min(first.value_or(timer.due), timer.due);
  }
  if (first && *first < never / tick_ns) {
    alarm_->arm(*first * tick_ns);
  } else {
    alarm_->cancel();
  }
}

void Hpet::expired() {
  for (unsigned i = 0; i < timer_count; ++i) {
    if (state_.timers[i].waiting && state_.timers[i].due <= now()) fire(i);
  }
  arm();
}

void Hpet::fire(unsigned index) {
  Timer& timer = state_.timers[index];
  if ((timer.config & timer_level) != 0) {
    state_.status |= 1u << index;
    drive(index);
  } else if (wires_[index] != nullptr) {
    wires_[index]->set(true);
    wires_[index]->set(false);
  }
  if ((timer.config & timer_periodic) == 0 || timer.period == 0) {
    schedule(index, true);
    return;
  }
  // The next tick, from this one's time on: being late does not add up.
  const uint64_t before = timer.due;
  uint64_t steps = std::max<uint64_t>((least_distance + timer.period - 1) / timer.period, 1);
  if (now() - before > most_behind) steps = std::max(steps, (now() - before) / timer.period + 1);
  timer.comparator = (timer.comparator + steps * timer.period) & width_mask(timer);
  timer.waiting = timer.period < never / steps && before + steps * timer.period < never;
  timer.due = before + steps * timer.period;
}

Result<> Hpet::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  for (const Timer& timer : state.timers) {
    const unsigned route = timer.config >> timer_route_shift & 31;
    if ((timer.config & ~timer_writable) != 0 || (route != 0 && (possible_routes >> route & 1) == 0)) {
      return fail("saved HPET timer has {:#x} as its configuration, which cannot be", timer.config);
    }
  }
  if ((state.config & ~(config_enabled | config_legacy)) != 0 || state.status >> timer_count != 0) {
    return fail("a saved HPET register has reserved bits set");
  }
  state_ = state;
  connect_all();
  arm();
  return {};
}

}  // namespace caisson
