// Words for a shell.
//   Threads  pure function
#pragma once

#include <string>
#include <string_view>

namespace caisson::cli {

// In single quotes: the shell takes it as it is.
[[nodiscard]] inline std::string in_quotes(std::string_view text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string{"'\\''"} : std::string{c};
  return out + "'";
}

}  // namespace caisson::cli
