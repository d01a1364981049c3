// A PS/2 keyboard behind the keyboard controller.
//   Spec     IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)"
//   Models   scan code set 2, reset, identity, echo, resend, LEDs and rate (taken and forgotten), enable and disable
//   Omits    sets 1 and 3 by the keyboard itself (set 1 is the controller's translation), typematic repeat
//   Threads  under the device lock
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/fields.h"

namespace caisson {

// A key by its code of set 1, as every table of keys has it; `extended`: with the prefix 0xe0.
struct Key {
  uint8_t code = 0;
  bool extended = false;
  bool operator==(const Key&) const = default;
};

class Ps2Keyboard {
 public:
  static constexpr uint8_t capacity = 64;

  struct State {
    std::array<uint8_t, capacity> queue{};
    uint8_t first = 0;
    uint8_t count = 0;
    bool disabled = false;    // takes keys only where enabled
    uint8_t argument_of = 0;  // the command whose argument comes next; 0: none
    uint8_t last = 0;

    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(row<1>("queue", &State::queue), row<2>("first", &State::first),
                                  row<3>("count", &State::count), row<4>("disabled", &State::disabled),
                                  row<5>("argument_of", &State::argument_of), row<6>("last", &State::last));
    }
    [[nodiscard]] bool possible() const { return first < capacity && count <= capacity; }

    void command(uint8_t value);
    // False where it does not fit or keys are not taken.
    bool key(uint8_t code, bool extended, bool down);
    [[nodiscard]] std::optional<uint8_t> next();

   private:
    bool put(uint8_t value);
  };
};

}  // namespace caisson
