#include "devices/chipset/rtc.h"

#include <algorithm>
#include <chrono>

#include "devices/chipset/layout.h"
#include "devices/chipset/scale.h"

namespace caisson {
namespace {

using chipset::ns_per_s;

enum Register : uint8_t {
  Seconds,
  SecondsAlarm,
  Minutes,
  MinutesAlarm,
  Hours,
  HoursAlarm,
  DayOfWeek,
  DayOfMonth,
  Month,
  Year,
  RegisterA,
  RegisterB,
  RegisterC,
  RegisterD,
  Century = chipset::rtc_century_index,
};

constexpr uint8_t a_update_in_progress = 0x80;
constexpr uint8_t a_divider = 0x70;
constexpr uint8_t a_divider_reset = 0x60;  // 110 and 111
constexpr uint8_t a_rate = 0x0f;
constexpr uint8_t b_set = 0x80;
constexpr uint8_t b_interrupts = 0x70;  // PIE, AIE, UIE: the bits of the flags in register C
constexpr uint8_t b_square_wave = 0x08;
constexpr uint8_t b_binary = 0x04;
constexpr uint8_t b_24_hours = 0x02;
constexpr uint8_t c_irq = 0x80;
constexpr uint8_t c_periodic = 0x40;
constexpr uint8_t c_alarm = 0x20;
constexpr uint8_t c_update_ended = 0x10;
constexpr uint8_t d_valid = 0x80;
constexpr uint8_t hour_pm = 0x80;
constexpr uint8_t alarm_any = 0xc0;

constexpr uint64_t base_hz = 32'768;
// The time from UIP to the update (data sheet, table 6: at least 244 µs).
constexpr uint64_t update_warning_ns = 244'141;
constexpr int64_t seconds_per_day = 86'400;
// Alarms are looked for this far ahead, so that a step of the wall clock delays one at most that long.
constexpr int64_t alarm_horizon_s = 60;
constexpr int64_t largest_offset_s = int64_t{1} << 38;  // covers the years 0 to 9999

bool is_time(uint8_t index) {
  return index == Seconds || index == Minutes || index == Hours || (index >= DayOfWeek && index <= Year) ||
         index == Century;
}

// log2 of the periodic interrupt's length in 32768 Hz ticks (table 5); the rate is not 0.
unsigned period_shift(uint8_t rate) { return rate <= 2 ? rate + 6u : rate - 1u; }

int64_t floor_mod(int64_t value, int64_t by) { return (value % by + by) % by; }

}  // namespace

Rtc::Rtc(InterruptLine& line, Clock& clock)
    : line_(line), clock_(clock), timer_(clock.create_timer([this] { update(); })) {
  state_.cmos[RegisterA] = 0x26;  // 32768 Hz time base, 1024 Hz rate: as firmware leaves it
  state_.cmos[RegisterB] = b_24_hours;
  state_.cmos[RegisterD] = d_valid;
  state_.seen_s = now_s();
  state_.seen_ticks = now_ticks();
  show_time();
}

void Rtc::reset() {
  account();
  state_.index = 0;
  state_.cmos[RegisterB] &= static_cast<uint8_t>(~(b_interrupts | b_square_wave));
  state_.cmos[RegisterC] = 0;
  update();
}

Result<> Rtc::restore(std::span<const uint8_t> in) {
  State state = state_;
  if (auto done = fields::restore(state, in); !done) return done;
  const auto possible = [](int64_t s) { return s >= -largest_offset_s && s <= largest_offset_s; };
  if (state.index >= state.cmos.size() || state.phase_ns >= ns_per_s || !possible(state.offset_s) ||
      !possible(state.seen_s) || (state.cmos[RegisterA] & a_update_in_progress) != 0 ||
      (state.cmos[RegisterC] & ~b_interrupts) != 0) {
    return fail("rtc: a saved register has an impossible value; the snapshot is damaged");
  }
  state_ = state;
  line_.set((state_.cmos[RegisterB] & state_.cmos[RegisterC] & b_interrupts) != 0);
  schedule();
  return {};
}

void Rtc::set_memory_size(uint64_t low, uint64_t high) {
  const auto put = [&](unsigned index, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) state_.cmos[index + i] = static_cast<uint8_t>(value >> (8 * i));
  };
  constexpr uint64_t kib = 1024, mib = 1024 * kib;
  const auto above = [&](uint64_t from) { return low > from ? low - from : 0; };
  put(0x15, 640, 2);
  const uint64_t extended = std::min<uint64_t>(above(mib) / kib, 0xffff);
  put(0x17, extended, 2);
  put(0x30, extended, 2);
  put(0x34, std::min<uint64_t>(above(16 * mib) / (64 * kib), 0xffff), 2);
  put(0x5b, std::min<uint64_t>(high / (64 * kib), 0xff'ffff), 3);
}

uint64_t Rtc::read(unsigned, uint64_t offset, unsigned) { return offset == 0 ? 0xff : read_data(); }

void Rtc::write(unsigned, uint64_t offset, unsigned, uint64_t value) {
  if (offset == 0) {
    state_.index = value & 0x7f;
  } else {
    write_data(static_cast<uint8_t>(value));
  }
}

uint8_t Rtc::read_data() {
  const uint8_t index = state_.index;
  if (is_time(index)) {
    if (running()) show_time();
    return state_.cmos[index];
  }
  switch (index) {
    case RegisterA: {
      const bool updating = running() && into_second_ns() >= ns_per_s - update_warning_ns;
      return state_.cmos[RegisterA] | (updating ? a_update_in_progress : 0);
    }
    case RegisterC: {
      account();
      const uint8_t flags = state_.cmos[RegisterC];
      const bool irq = (flags & state_.cmos[RegisterB] & b_interrupts) != 0;
      state_.cmos[RegisterC] = 0;
      update();
      return flags | (irq ? c_irq : 0);
    }
    default: return state_.cmos[index];
  }
}

void Rtc::write_data(uint8_t value) {
  const uint8_t index = state_.index;
  if (is_time(index)) {
    if (running()) show_time();
    state_.cmos[index] = value;
    if (running()) {
      account();
      take_time();
    }
    update();
    return;
  }
  switch (index) {
    case RegisterA:
    case RegisterB: {
      account();
      const bool ran = running();
      const bool was_reset = (state_.cmos[RegisterA] & a_divider_reset) == a_divider_reset;
      if (ran) show_time();
      if (index == RegisterA) {
        state_.cmos[RegisterA] = value & (a_divider | a_rate);
      } else {
        // SET aborts an update and clears UIE.
        if ((value & b_set) != 0) value &= static_cast<uint8_t>(~c_update_ended);
        state_.cmos[RegisterB] = value;
      }
      if (!ran && running()) resume(was_reset);
      update();
      break;
    }
    case RegisterC:
    case RegisterD: break;
    default:
      account();  // an alarm that has passed already was passed with the old setting
      state_.cmos[index] = value;
      update();
      break;
  }
}

bool Rtc::running() const {
  return (state_.cmos[RegisterB] & b_set) == 0 && (state_.cmos[RegisterA] & a_divider_reset) != a_divider_reset;
}

int64_t Rtc::now_s() const {
  return static_cast<int64_t>((clock_.wall_ns() + state_.phase_ns) / ns_per_s) + state_.offset_s;
}

uint64_t Rtc::into_second_ns() const { return (clock_.wall_ns() + state_.phase_ns) % ns_per_s; }

uint64_t Rtc::now_ticks() const { return chipset::scale(clock_.now_ns(), base_hz, ns_per_s); }

uint8_t Rtc::encode(unsigned value) const {
  if ((state_.cmos[RegisterB] & b_binary) != 0) return static_cast<uint8_t>(value);
  return static_cast<uint8_t>(value / 10 % 10 << 4 | value % 10);
}

unsigned Rtc::decode(uint8_t value) const {
  if ((state_.cmos[RegisterB] & b_binary) != 0) return value;
  return (value >> 4) * 10u + (value & 0xfu);
}

uint8_t Rtc::encode_hour(unsigned hour) const {
  if ((state_.cmos[RegisterB] & b_24_hours) != 0) return encode(hour);
  const unsigned twelve = hour % 12 == 0 ? 12 : hour % 12;
  return encode(twelve) | (hour >= 12 ? hour_pm : 0);
}

unsigned Rtc::decode_hour(uint8_t value) const {
  if ((state_.cmos[RegisterB] & b_24_hours) != 0) return decode(value) % 24;
  return decode(value & 0x7f) % 12 + ((value & hour_pm) != 0 ? 12 : 0);
}

// Puts the running time into the registers.
void Rtc::show_time() {
  using namespace std::chrono;
  const int64_t second = now_s();
  const int64_t of_day = floor_mod(second, seconds_per_day);
  const auto day_number = static_cast<int>((second - of_day) / seconds_per_day);
  const year_month_day date{sys_days{days{day_number}}};
  const auto full_year = static_cast<unsigned>(floor_mod(static_cast<int>(date.year()), 10'000));
  auto& cmos = state_.cmos;
  cmos[Seconds] = encode(static_cast<unsigned>(of_day % 60));
  cmos[Minutes] = encode(static_cast<unsigned>(of_day / 60 % 60));
  cmos[Hours] = encode_hour(static_cast<unsigned>(of_day / 3600));
  cmos[DayOfWeek] = encode(static_cast<unsigned>(floor_mod(day_number + 4, 7) + 1));  // 1970-01-01 was a Thursday
  cmos[DayOfMonth] = encode(static_cast<unsigned>(date.day()));
  cmos[Month] = encode(static_cast<unsigned>(date.month()));
  cmos[Year] = encode(full_year % 100);
  cmos[Century] = encode(full_year / 100);
}

// Makes the registers the running time. What is out of range wraps or is brought in.
void Rtc::take_time() {
  using namespace std::chrono;
  const auto& cmos = state_.cmos;
  const int full_year = static_cast<int>(decode(cmos[Century]) % 100 * 100 + decode(cmos[Year]) % 100);
  const unsigned in_year = std::clamp(decode(cmos[Month]), 1u, 12u);
  const unsigned in_month = std::clamp(decode(cmos[DayOfMonth]), 1u, 31u);
  const sys_days first{year{full_year} / month{in_year} / day{1}};
  const int64_t day_number = (first.time_since_epoch() + days{in_month - 1}).count();
  const int64_t second = day_number * seconds_per_day + decode_hour(cmos[Hours]) * 3600 +
                         decode(cmos[Minutes]) % 60 * 60 + decode(cmos[Seconds]) % 60;
  state_.offset_s += second - now_s();
  state_.seen_s = second;
}

void Rtc::resume(bool divider_was_reset) {
  // 500 ms pass between the divider's release and the first update.
  if (divider_was_reset) state_.phase_ns = (ns_per_s + ns_per_s / 2 - clock_.wall_ns() % ns_per_s) % ns_per_s;
  take_time();
  state_.seen_ticks = now_ticks();
}

bool Rtc::alarm_matches(int64_t second) const {
  const int64_t of_day = floor_mod(second, seconds_per_day);
  const auto matches = [&](uint8_t alarm, uint8_t value) { return (alarm & alarm_any) == alarm_any || alarm == value; };
  const auto& cmos = state_.cmos;
  return matches(cmos[SecondsAlarm], encode(static_cast<unsigned>(of_day % 60))) &&
         matches(cmos[MinutesAlarm], encode(static_cast<unsigned>(of_day / 60 % 60))) &&
         matches(cmos[HoursAlarm], encode_hour(static_cast<unsigned>(of_day / 3600)));
}

// Brings the flags of register C up to now.
void Rtc::account() {
  if (!running()) return;
  uint8_t& flags = state_.cmos[RegisterC];
  const int64_t second = now_s();
  if (second > state_.seen_s) {
    flags |= c_update_ended;
    for (int64_t s = std::max(state_.seen_s + 1, second - seconds_per_day + 1); s <= second; ++s) {
      if ((flags & c_alarm) != 0) break;
      if (alarm_matches(s)) flags |= c_alarm;
    }
  }
  state_.seen_s = second;
  const uint64_t ticks = now_ticks();
  if (const uint8_t rate = state_.cmos[RegisterA] & a_rate; rate != 0) {
    const unsigned shift = period_shift(rate);
    if (ticks >> shift != state_.seen_ticks >> shift) flags |= c_periodic;
  }
  state_.seen_ticks = ticks;
}

void Rtc::update() {
  account();
  line_.set((state_.cmos[RegisterB] & state_.cmos[RegisterC] & b_interrupts) != 0);
  schedule();
}

// Only what is enabled and has not happened yet needs a timer.
void Rtc::schedule() {
  const uint8_t wanted = state_.cmos[RegisterB] & ~state_.cmos[RegisterC] & b_interrupts;
  const uint64_t now = clock_.now_ns();
  uint64_t next = 0;
  const auto at = [&](uint64_t ns) { next = next == 0 ? ns : std::min(next, ns); };
  if (running() && wanted != 0) {
    const uint8_t rate = state_.cmos[RegisterA] & a_rate;
    if ((wanted & c_periodic) != 0 && rate != 0) {
      const unsigned shift = period_shift(rate);
      at(chipset::scale_up(((now_ticks() >> shift) + 1) << shift, ns_per_s, base_hz));
    }
    const uint64_t boundary = now + ns_per_s - into_second_ns();
    if ((wanted & c_update_ended) != 0) at(boundary);
    if ((wanted & c_alarm) != 0) {
      const int64_t second = now_s();
      int64_t ahead = 1;
      while (ahead < alarm_horizon_s && !alarm_matches(second + ahead)) ++ahead;
      at(boundary + static_cast<uint64_t>(ahead - 1) * ns_per_s);
    }
  }
  if (next == 0) {
    timer_->cancel();
  } else {
    timer_->arm(next);
  }
}

}  // namespace caisson
