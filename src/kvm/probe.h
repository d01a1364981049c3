// Whether /dev/kvm is worth using: how fast it runs ring 0.
//   Why      some hosts have a /dev/kvm without hardware virtualization behind it; it emulates ring 0 a hundred times
//            slower than the jit engine runs it
//   Threads  any; takes 20 ms at most
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace caisson::kvm {

// Instructions a second of a loop in ring 0 from which on --engine auto uses /dev/kvm. Hardware does a thousand million
// or more; the jit engine is as fast as this where it is slowest.
inline constexpr uint64_t least_speed = 30'000'000;

// Runs a loop in ring 0 of a scratch machine. An error where it cannot be run; it names cause and remedy.
[[nodiscard]] Result<uint64_t> ring0_speed(const Fd& device);

struct Verdict {
  bool use = false;
  std::string why;  // one line, in both cases
};
[[nodiscard]] Verdict examine(const Fd& device);
// Tells the verdict once, before it takes the scratch machine apart, which may last as long as the measurement.
void examine(const Fd& device, const std::function<void(Verdict)>& tell);

}  // namespace caisson::kvm
