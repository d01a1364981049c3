#include "devices/chipset/ps2_mouse.h"

#include <algorithm>
#include <utility>

namespace caisson {
namespace {

enum Command : uint8_t {
  SetScaling1 = 0xe6,
  SetScaling2 = 0xe7,
  SetResolution = 0xe8,
  ReadStatus = 0xe9,
  SetStream = 0xea,
  ReadData = 0xeb,
  ResetWrap = 0xec,
  SetWrap = 0xee,
  SetRemote = 0xf0,
  ReadIdentity = 0xf2,
  SetRate = 0xf3,
  Enable = 0xf4,
  Disable = 0xf5,
  SetDefaults = 0xf6,
  Resend = 0xfe,
  Reset = 0xff,
};
constexpr uint8_t acknowledge = 0xfa, self_test_passed = 0xaa, error = 0xfc;
constexpr uint8_t with_wheel = 3, with_five_buttons = 4;
constexpr std::array<uint8_t, 7> rates{10, 20, 40, 60, 80, 100, 200};
constexpr uint8_t best_resolution = 3;
// The first byte of a report.
constexpr uint8_t report_always = 0x08, report_right_sign = 0x10, report_up_sign = 0x20;
constexpr uint8_t three_buttons = 0x07;
// What one report can tell; a scaled one tells up to twice as much.
constexpr int most_counts = 255, most_scaled_counts = 127, most_wheel = 7;
// A guest that looks away for a while finds at most so much.
constexpr int most_waiting = 1 << 15;
constexpr uint8_t report_room = 16;  // kept free for answers

// "Scaling 2:1": what is reported for so many counts.
int scaled(int counts) {
  constexpr std::array<int, 6> small{0, 1, 1, 3, 6, 9};
  const int size = counts < 0 ? -counts : counts;
  const int value = size < static_cast<int>(small.size()) ? small[static_cast<size_t>(size)] : 2 * size;
  return counts < 0 ? -value : value;
}

void add(uint32_t& sum, int counts) {
  const int bounded = std::clamp(counts, -most_waiting, most_waiting);
  sum = static_cast<uint32_t>(std::clamp(static_cast<int>(sum) + bounded, -most_waiting, most_waiting));
}

// So much of it as fits; the rest stays.
int take(uint32_t& sum, int most) {
  const int part = std::clamp(static_cast<int>(sum), -most, most);
  sum -= static_cast<uint32_t>(part);
  return part;
}

bool bounded(uint32_t sum) {
  const int value = static_cast<int>(sum);
  return value >= -most_waiting && value <= most_waiting;
}

}  // namespace

bool Ps2Mouse::State::possible() const {
  return first < capacity && count <= capacity && resolution <= best_resolution && bounded(right_by) &&
         bounded(up_by) && bounded(wheel_by);
}

void Ps2Mouse::State::put(uint8_t value) {
  if (count == capacity) return;
  queue[(first + count) % capacity] = value;
  ++count;
}

bool Ps2Mouse::State::news() const {
  return changed || right_by != 0 || up_by != 0 || (identity != 0 && wheel_by != 0);
}

void Ps2Mouse::State::put_report() {
  const int most = doubled ? most_scaled_counts : most_counts;
  int right_counts = take(right_by, most), up_counts = take(up_by, most);
  const int wheel = take(wheel_by, most_wheel);
  if (doubled && !remote) {
    right_counts = scaled(right_counts);
    up_counts = scaled(up_counts);
  }
  changed = false;
  put(static_cast<uint8_t>(report_always | (buttons & three_buttons) | (right_counts < 0 ? report_right_sign : 0) |
                           (up_counts < 0 ? report_up_sign : 0)));
  put(static_cast<uint8_t>(right_counts));
  put(static_cast<uint8_t>(up_counts));
  if (identity == with_wheel) put(static_cast<uint8_t>(wheel));
  if (identity == with_five_buttons) {
    put(static_cast<uint8_t>((wheel & 0x0f) | (buttons & (fourth | fifth)) << 1));
  }
}

std::optional<uint8_t> Ps2Mouse::State::next() {
  if (count == 0 && streams() && news()) put_report();
  if (count == 0) return {};
  last = queue[first];
  first = static_cast<uint8_t>((first + 1) % capacity);
  --count;
  return last;
}

bool Ps2Mouse::State::move(int right_counts, int up_counts, int wheel_counts, uint8_t down) {
  const bool pressed = down != buttons;
  if (pressed && streams() && count + 2 * 4 > capacity - report_room) return false;
  add(right_by, right_counts);
  add(up_by, up_counts);
  add(wheel_by, wheel_counts);
  // Buttons hold where the pointer is now: what has moved before them is told before them.
  if (pressed && streams() && (changed || right_by != 0 || up_by != 0)) {
    while ((right_by != 0 || up_by != 0) && count + 2 * 4 <= capacity - report_room) put_report();
  }
  buttons = down;
  changed = changed || pressed;
  if (pressed && streams()) put_report();
  return true;
}

void Ps2Mouse::State::forget() { right_by = up_by = wheel_by = 0; }

void Ps2Mouse::State::set_defaults() {
  rate = 100;
  resolution = 2;
  doubled = remote = enabled = false;
  past_rates = {};
  forget();
}

// The first invalid byte may come again, the second in a row is an error.
void Ps2Mouse::State::refuse() { put(std::exchange(refused, !refused) ? error : static_cast<uint8_t>(Resend)); }

void Ps2Mouse::State::argument(uint8_t command, uint8_t value) {
  const bool valid = command == SetRate ? std::ranges::find(rates, value) != rates.end() : value <= best_resolution;
  if (!valid) {
    if (!refused) argument_of = command;
    return refuse();
  }
  refused = false;
  put(acknowledge);
  if (command == SetResolution) {
    resolution = value;
    return;
  }
  const std::array<uint8_t, 3> knock{past_rates[0], past_rates[1], value};
  if (knock == std::array<uint8_t, 3>{200, 100, 80}) identity = with_wheel;
  if (knock == std::array<uint8_t, 3>{200, 200, 80}) identity = with_five_buttons;
  past_rates = {past_rates[1], value};
  rate = value;
}

void Ps2Mouse::State::command(uint8_t value) {
  // A byte from the host ends what the mouse was about to send; buttons that were in it are told again.
  if (value != Resend) {
    changed = changed || count != 0;
    count = 0;
  }
  if (wrap && value != Reset && value != ResetWrap) return put(value);
  if (const uint8_t command = std::exchange(argument_of, uint8_t{0}); command != 0) return argument(command, value);
  switch (value) {
    case SetScaling1:
    case SetScaling2: doubled = value == SetScaling2; break;
    case SetResolution:
    case SetRate: argument_of = value; break;
    case SetStream:
      remote = false;
      forget();
      break;
    case SetRemote:
      remote = true;
      forget();
      break;
    case SetWrap: wrap = true; break;
    case ResetWrap: wrap = false; break;
    case Enable:
      enabled = true;
      changed = false;
      forget();
      break;
    case Disable: enabled = false; break;
    case SetDefaults: set_defaults(); break;
    case Resend: return put(last);
    case ReadData: put(acknowledge); return put_report();
    case ReadStatus:
      put(acknowledge);
      put(static_cast<uint8_t>((remote ? 0x40 : 0) | (enabled ? 0x20 : 0) | (doubled ? 0x10 : 0) |
                               ((buttons & left) != 0 ? 0x04 : 0) | ((buttons & middle) != 0 ? 0x02 : 0) |
                               ((buttons & right) != 0 ? 0x01 : 0)));
      put(resolution);
      put(rate);
      refused = false;
      return;
    case ReadIdentity:
      put(acknowledge);
      put(identity);
      refused = false;
      return;
    case Reset: {
      const uint8_t down = buttons;
      *this = State{};
      buttons = down;
      put(acknowledge);
      put(self_test_passed);
      put(identity);
      return;
    }
    default: return refuse();
  }
  refused = false;
  put(acknowledge);
}

}  // namespace caisson
