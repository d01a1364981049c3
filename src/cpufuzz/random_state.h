// Random register and memory images that meet the edges of number ranges more often than chance would.
#pragma once

#include <random>

#include "cpufuzz/case.h"

namespace caisson::cpufuzz {

using Random = std::mt19937_64;

[[nodiscard]] uint64_t random_value(Random& random);
// Everything but RIP; RSP points into the data, FS and GS bases too.
[[nodiscard]] State random_state(Random& random);

}  // namespace caisson::cpufuzz
