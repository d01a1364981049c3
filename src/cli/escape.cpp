#include "cli/escape.h"

namespace caisson::cli {

EscapeAction Escape::feed(std::string_view& input, std::string& out) {
  while (!input.empty()) {
    const char c = input.front();
    input.remove_prefix(1);
    if (!pending_) {
      if (c == key) {
        pending_ = true;
      } else {
        out.push_back(c);
      }
      continue;
    }
    pending_ = false;
    switch (c) {
      case 'q': return EscapeAction::Quit;
      case 'p': return EscapeAction::PowerButton;
      case 'r': return EscapeAction::Reset;
      case key: out.push_back(key); break;
      default: return EscapeAction::Help;
    }
  }
  return EscapeAction::None;
}

}  // namespace caisson::cli
