// Conversion between nanoseconds and a counter's ticks without overflow on the way.
#pragma once

#include <cstdint>

namespace caisson::chipset {

inline constexpr uint64_t ns_per_s = 1'000'000'000;

__extension__ using Wide = unsigned __int128;

// value * numerator / denominator, rounded down or up; all ones where the result does not fit.
constexpr uint64_t scale(uint64_t value, uint64_t numerator, uint64_t denominator) {
  const Wide result = Wide{value} * numerator / denominator;
  return result > ~uint64_t{0} ? ~uint64_t{0} : static_cast<uint64_t>(result);
}
constexpr uint64_t scale_up(uint64_t value, uint64_t numerator, uint64_t denominator) {
  const Wide result = (Wide{value} * numerator + (denominator - 1)) / denominator;
  return result > ~uint64_t{0} ? ~uint64_t{0} : static_cast<uint64_t>(result);
}

}  // namespace caisson::chipset
