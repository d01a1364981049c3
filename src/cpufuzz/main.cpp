// caisson-cpu-fuzz: random code on the host's CPU, on the interpreter and on the translator, from the same state.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <string_view>

#include <fmt/format.h>

#include "cpufuzz/compare.h"
#include "cpufuzz/coverage.h"

namespace {

using namespace caisson;
using namespace caisson::cpufuzz;

constexpr const char* usage =
    "usage: caisson-cpu-fuzz [--flow | --form N] [--seed N] [--rounds N | --minutes N] [--all] [--report]\n"
    "  without --flow: single instructions, every form of every one; a round takes each form once\n"
    "  --flow       programs with jumps, loops, calls; a round is one of them, its seed one more than the last\n"
    "  --form N     this form only\n"
    "  --seed N     of the first round (default 1)\n"
    "  --rounds N   how many (default 1)\n"
    "  --minutes N  until then\n"
    "  --all        go on after a difference\n"
    "  --report     what was covered, of what the host's CPU model offers, and what not, and why\n";

struct Options {
  uint64_t seed = 1, rounds = 1, minutes = 0;
  bool all = false, report = false;
  std::optional<size_t> form;
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

int run_singles(Comparison& comparison, const Options& options) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(options.minutes);
  const std::vector<Form> forms = all_forms();
  Coverage coverage(forms);
  uint64_t cases = 0, different = 0;
  for (uint64_t seed = options.seed;; ++seed) {
    if (options.minutes != 0 ? std::chrono::steady_clock::now() >= end : seed == options.seed + options.rounds) break;
    for (size_t i = 0; i < forms.size(); ++i) {
      if (forms[i].reason != nullptr || (options.form && *options.form != i)) continue;
      const auto single = single_of(forms, i, seed);
      if (!single) continue;
      ++cases;
      Outcome expected;
      const std::string text = difference(comparison, *single, &expected);
      coverage.ran(i, *single, expected);
      if (text.empty()) continue;
      ++different;
      fmt::print("{}: {}{}  repeat: caisson-cpu-fuzz --form {} --seed {}\n", forms[i].name, text,
                 listing({.code = single->code, .state = single->state}), i, seed);
      std::fflush(stdout);
      if (!options.all) return 1;
    }
  }
  fmt::print("{} cases, {} different\n", cases, different);
  if (options.report) fmt::print("{}", coverage.report());
  return different == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  bool flow = false;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = arguments[i];
    const auto number = [&] { return i + 1 < count ? std::strtoull(arguments[++i], nullptr, 0) : 0; };
    if (word == "--flow") {
      flow = true;
    } else if (word == "--form") {
      options.form = number();
    } else if (word == "--report") {
      options.report = true;
    } else if (word == "--all") {
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
  return flow ? run_flow(*comparison, options) : run_singles(*comparison, options);
}
