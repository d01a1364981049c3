// Numbers as people write them.
//   Threads  pure functions
#pragma once

#include <cctype>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace caisson::cli {

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// Bytes from a number with a unit; `bare_shift` is the unit of a bare number.
inline std::optional<uint64_t> parse_bytes(std::string_view text, unsigned bare_shift) {
  unsigned shift = bare_shift;
  for (const std::string_view tail : {"iB", "B", "ib", "b"}) {
    if (text.size() > tail.size() + 1 && text.ends_with(tail) && !std::isdigit(text[text.size() - tail.size() - 1])) {
      text.remove_suffix(tail.size());
      break;
    }
  }
  if (!text.empty()) {
    constexpr std::string_view units = "kmgt";
    const auto unit = units.find(static_cast<char>(std::tolower(static_cast<unsigned char>(text.back()))));
    if (unit != std::string_view::npos) {
      shift = 10 * (static_cast<unsigned>(unit) + 1);
      text.remove_suffix(1);
    }
  }
  const auto number = parse_number<uint64_t>(text);
  if (!number || *number > (uint64_t{1} << (63 - shift))) return std::nullopt;
  return *number << shift;
}

// At commas; at least one piece, which may be empty.
inline std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> pieces;
  for (;;) {
    const size_t comma = text.find(',');
    pieces.push_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return pieces;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace caisson::cli
