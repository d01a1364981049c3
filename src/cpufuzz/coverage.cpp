#include "cpufuzz/coverage.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "x86/registers.h"

namespace caisson::cpufuzz {

std::optional<Single> single_of(const std::vector<Form>& forms, size_t form, uint64_t seed) {
  std::seed_seq mixed{seed & 0xffff'ffff, seed >> 32, uint64_t{form}};
  Random random(mixed);
  return random_single(forms[form], random);
}

std::string difference(Comparison& comparison, const Single& single, Outcome* expected) {
  return comparison.difference({.code = single.code, .state = single.state},
                               {.end = single.code.size() - 2,
                                .flags = single.undefined,
                                .half_done = single.half_done,
                                .may_fault = single.may_fault},
                               expected);
}

void Coverage::ran(size_t form, const Single& single, const Outcome& expected) {
  const bool undefined = expected.vector == x86::Ud && expected.state.rip == single.state.rip;
  state_[form] = std::max(state_[form], undefined ? Seen::Undefined : Seen::Executed);
}

// What the host answers with #UD every time it does not have, and then no model offers it there.
bool Coverage::exposed(size_t form) const {
  return state_[form] != Seen::Undefined && (forms_[form].reason == nullptr || !forms_[form].not_offered);
}

double Coverage::share() const {
  size_t all = 0, executed = 0;
  for (size_t i = 0; i < forms_.size(); ++i) {
    all += exposed(i);
    executed += state_[i] == Seen::Executed;
  }
  return all == 0 ? 0 : static_cast<double>(executed) / static_cast<double>(all);
}

std::string Coverage::report() const {
  size_t all = 0, executed = 0;
  std::map<std::string, std::vector<size_t>> others;
  for (size_t i = 0; i < forms_.size(); ++i) {
    if (exposed(i)) ++all;
    if (state_[i] == Seen::Executed) {
      ++executed;
    } else if (forms_[i].reason != nullptr) {
      others[forms_[i].reason].push_back(i);
    } else {
      others[state_[i] == Seen::Undefined ? "the host answers #UD" : "no case came of it"].push_back(i);
    }
  }
  std::string text = fmt::format("{} forms known to the decoder, {} of them exposed here; {} compared: {:.1f} %\n",
                                 forms_.size(), all, executed, 100 * share());
  for (const auto& [reason, list] : others) {
    text += fmt::format("\nnot compared, {}: {}\n", reason, list.size());
    for (const size_t i : list) text += fmt::format("  {:5}  {}\n", i, forms_[i].name);
  }
  return text;
}

}  // namespace caisson::cpufuzz
