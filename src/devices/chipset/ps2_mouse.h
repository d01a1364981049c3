// A PS/2 mouse behind the keyboard controller.
//   Spec     IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft's IntelliMouse knocks (sample rates
//            200, 100, 80: wheel; 200, 200, 80: wheel and buttons 4 and 5)
//   Models   stream, remote and wrap mode, scaling, resolution, sample rate, status, identity, resend, reset, defaults
//   Omits    the pace of the sample rate: a report is made when the guest has read the last one
//   Threads  under the device lock
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/fields.h"

namespace caisson {

class Ps2Mouse {
 public:
  static constexpr uint8_t capacity = 64;
  // Bits of buttons.
  enum Button : uint8_t { left = 1, right = 2, middle = 4, fourth = 8, fifth = 16 };

  struct State {
    std::array<uint8_t, capacity> queue{};
    uint8_t first = 0;
    uint8_t count = 0;
    uint8_t argument_of = 0;  // the command whose argument comes next; 0: none
    uint8_t last = 0;
    bool remote = false, wrap = false, enabled = false, doubled = false, refused = false;
    uint8_t resolution = 2;               // 2 to the power of this counts a millimetre
    uint8_t rate = 100;                   // samples a second
    uint8_t identity = 0;                 // 0: three buttons; 3: and a wheel; 4: and two more buttons
    std::array<uint8_t, 2> past_rates{};  // the two before `rate`, as they were set
    uint8_t buttons = 0;                  // as they are
    bool changed = false;                 // and the guest has not been told
    uint32_t right_by = 0, up_by = 0;     // two's complement: counts since the last report
    uint32_t wheel_by = 0;                // towards the user

    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(
          row<1>("queue", &State::queue), row<2>("first", &State::first), row<3>("count", &State::count),
          row<4>("argument_of", &State::argument_of), row<5>("last", &State::last), row<6>("remote", &State::remote),
          row<7>("wrap", &State::wrap), row<8>("enabled", &State::enabled), row<9>("doubled", &State::doubled),
          row<10>("refused", &State::refused), row<11>("resolution", &State::resolution), row<12>("rate", &State::rate),
          row<13>("identity", &State::identity), row<14>("past_rates", &State::past_rates),
          row<15>("buttons", &State::buttons), row<16>("changed", &State::changed),
          row<17>("right_by", &State::right_by), row<18>("up_by", &State::up_by),
          row<19>("wheel_by", &State::wheel_by));
    }
    [[nodiscard]] bool possible() const;

    void command(uint8_t value);
    // Moves by so many counts and has these buttons down from now on. False where the guest has not been told of
    // earlier buttons yet: try again later. Where it wants no reports they are forgotten, as a mouse does.
    bool move(int right_counts, int up_counts, int wheel_counts, uint8_t down);
    [[nodiscard]] std::optional<uint8_t> next();
    // Nothing is left to report.
    [[nodiscard]] bool told() const { return count == 0 && !news(); }

   private:
    void put(uint8_t value);
    void put_report();
    void forget();
    void set_defaults();
    void refuse();
    void argument(uint8_t command, uint8_t value);
    [[nodiscard]] bool streams() const { return enabled && !remote && !wrap; }
    [[nodiscard]] bool news() const;
  };
};

}  // namespace caisson
