// The escape key of the console: Ctrl-] and one letter. Everything else goes to the guest untouched.
//   Threads  one object, one thread
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace caisson::cli {

inline constexpr std::string_view escape_hint =
    "Escape key: Ctrl-], then q to quit, p to press the power button, r to reset, h for help";
inline constexpr std::string_view attached_hint =
    "Escape key: Ctrl-], then q to leave the console (the machine goes on), p to press the power button, r to reset";
inline constexpr std::string_view escape_help =
    "Ctrl-] then: q quit (as pulling the plug) | p press the power button | r reset | Ctrl-] send Ctrl-] to the guest "
    "| h this help";

enum class EscapeAction : uint8_t { None, Quit, PowerButton, Reset, Help };

class Escape {
 public:
  static constexpr char key = 0x1d;  // Ctrl-]

  // Appends to `out` what is the guest's. Stops after the first action and takes it and all before it from `input`, so
  // the caller acts in order and calls again with the rest.
  [[nodiscard]] EscapeAction feed(std::string_view& input, std::string& out);

 private:
  bool pending_ = false;
};

}  // namespace caisson::cli
