// Text as keys pressed on an American keyboard: printable ASCII, and names in angle brackets: <enter> <esc> <tab> <up>
// <f1>, with modifiers <ctrl-alt-delete>, <shift-tab>; "<<" is the character itself, a line's end is <enter>.
//   Threads  pure functions
#pragma once

#include <cstdint>
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

// Every key that goes down comes up again. The error names what is no key.
[[nodiscard]] Result<std::vector<KeyEvent>> parse_keys(std::string_view text);

}  // namespace caisson::control
