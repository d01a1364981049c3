// Text as keys pressed on a keyboard: its characters, and names in angle brackets: <enter> <esc> <tab> <up> <f1>, with
// modifiers <ctrl-alt-delete>, <shift-tab>; "<<" is the character itself, a line's end is <enter>. Text is UTF-8.
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::control {

struct KeyEvent {
  uint8_t code = 0;       // of scan code set 1
  bool extended = false;  // with the prefix 0xe0
  bool down = false;
  bool operator==(const KeyEvent&) const = default;
};

struct Stroke {
  uint8_t code = 0;
  bool extended = false;
  bool shift = false, altgr = false;
  bool operator==(const Stroke&) const = default;
};
// What is pressed for a character, one after the other; nothing where the keyboard has no key for it.
using Characters = std::function<std::vector<Stroke>(char32_t)>;
// Those of an American keyboard: printable ASCII.
[[nodiscard]] std::vector<Stroke> american_keys(char32_t character);

// Every key that goes down comes up again. The error names what is no key.
[[nodiscard]] Result<std::vector<KeyEvent>> parse_keys(std::string_view text,
                                                       const Characters& characters = american_keys);

}  // namespace caisson::control
