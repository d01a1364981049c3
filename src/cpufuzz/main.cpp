// caisson-cpu-fuzz: random code on the host's CPU, on the interpreter and on the translator, from the same state.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string_view>

#include <fmt/format.h>

#include "cpufuzz/compare.h"

namespace {

using namespace caisson;
using namespace caisson::cpufuzz;

constexpr const char* usage =
    "usage: caisson-cpu-fuzz [--flow] [--seed N] [--rounds N | --minutes N] [--all]\n"
    "  --flow       programs with jumps, loops, calls\n"
    "  --seed N     first case (default 1); each case has a seed of its own, one more than the last\n"
    "  --rounds N   how many (default 1000)\n"
    "  --minutes N  until then\n"
    "  --all        go on after a difference\n";

struct Options {
  uint64_t seed = 1, rounds = 1000, minutes = 0;
  bool all = false;
};

int run_flow(Comparison& comparison, const Options& options) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(options.minutes);
  uint64_t different = 0, seed = options.seed;
  std::map<int, uint64_t> ends;
  for (;; ++seed) {
    if (options.minutes != 0 ? std::chrono::steady_clock::now() >= end : seed == options.seed + options.rounds) break;
    const Flow flow = random_flow(seed);
    Outcome expected;
    if (comparison.difference(flow, &expected).empty()) {
      const bool whole = expected.state.rip == flow.state.rip + flow.assemble().end;
      ++ends[whole ? 256 : expected.vector];
      continue;
    }
    ++different;
    const Flow small = comparison.shrink(flow);
    fmt::print("seed {}: {}{}  repeat: caisson-cpu-fuzz --flow --seed {} --rounds 1\n", seed,
               comparison.difference(small), listing({.code = small.assemble().code, .state = small.state}), seed);
    std::fflush(stdout);
    if (!options.all) break;
  }
  fmt::print("{} programs, {} different; whole {}", seed - options.seed, different, ends[256]);
  for (const auto& [vector, count] : ends) {
    if (vector != 256) fmt::print(", ended by vector {}: {}", vector, count);
  }
  fmt::print("\n");
  return different == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = arguments[i];
    const auto number = [&] { return i + 1 < count ? std::strtoull(arguments[++i], nullptr, 0) : 0; };
    if (word == "--flow") continue;
    if (word == "--all") {
      options.all = true;
    } else if (word == "--seed") {
      options.seed = number();
    } else if (word == "--rounds") {
      options.rounds = number();
    } else if (word == "--minutes") {
      options.minutes = number();
    } else {
      std::fputs(usage, stderr);
      return 2;
    }
  }
  auto comparison = Comparison::create();
  if (!comparison) {
    fmt::print(stderr, "caisson-cpu-fuzz: {}\n", comparison.error().message);
    return 2;
  }
  return run_flow(*comparison, options);
}
