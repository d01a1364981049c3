#include "devices/chipset/ps2_keyboard.h"

#include <utility>

namespace caisson {
namespace {

enum Command : uint8_t {
  SetLeds = 0xed,
  Echo = 0xee,
  SelectSet = 0xf0,
  ReadId = 0xf2,
  SetRate = 0xf3,
  Enable = 0xf4,
  DisableWithDefaults = 0xf5,
  SetDefaults = 0xf6,
  Resend = 0xfe,
  Reset = 0xff,
};
constexpr uint8_t acknowledge = 0xfa, self_test_passed = 0xaa, id_first = 0xab, id_second = 0x83, scan_set = 2;
constexpr uint8_t extended_prefix = 0xe0, release_prefix = 0xf0;
constexpr uint8_t most_keys = Ps2Keyboard::capacity - 8;  // the rest is for answers

}  // namespace

bool Ps2Keyboard::State::put(uint8_t value) {
  if (count == capacity) return false;
  queue[(first + count) % capacity] = value;
  ++count;
  return true;
}

std::optional<uint8_t> Ps2Keyboard::State::next() {
  if (count == 0) return {};
  last = queue[first];
  first = static_cast<uint8_t>((first + 1) % capacity);
  --count;
  return last;
}

void Ps2Keyboard::State::command(uint8_t value) {
  if (const uint8_t command = std::exchange(argument_of, uint8_t{0}); command != 0) {
    put(acknowledge);
    if (command == SelectSet && value == 0) put(scan_set);
    return;
  }
  switch (value) {
    case SetLeds:
    case SelectSet:
    case SetRate:
      argument_of = value;
      put(acknowledge);
      break;
    case Echo: put(Echo); break;
    case Resend: put(last); break;
    case ReadId:
      put(acknowledge);
      put(id_first);
      put(id_second);
      break;
    case Enable:
      disabled = false;
      put(acknowledge);
      break;
    case DisableWithDefaults:
    case SetDefaults:
      disabled = value == DisableWithDefaults;
      count = 0;
      put(acknowledge);
      break;
    case Reset:
      *this = State{};
      put(acknowledge);
      put(self_test_passed);
      break;
    default: put(Resend); break;
  }
}

bool Ps2Keyboard::State::key(uint8_t code, bool extended, bool down) {
  if (disabled || count + 3 > most_keys) return false;
  if (extended) put(extended_prefix);
  if (!down) put(release_prefix);
  return put(code);
}

}  // namespace caisson
