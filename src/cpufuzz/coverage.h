// Single instructions: the case of a form and a seed, and the account of which forms have run.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cpufuzz/compare.h"
#include "cpufuzz/forms.h"

namespace caisson::cpufuzz {

[[nodiscard]] std::optional<Single> single_of(const std::vector<Form>& forms, size_t form, uint64_t seed);
[[nodiscard]] std::string difference(Comparison& comparison, const Single& single, Outcome* expected);

class Coverage {
 public:
  explicit Coverage(const std::vector<Form>& forms) : forms_(forms), state_(forms.size()) {}

  void ran(size_t form, const Single& single, const Outcome& expected);
  // Share of the forms that the host executes, then the others by reason.
  [[nodiscard]] std::string report() const;
  [[nodiscard]] double share() const;  // 0 to 1: exercised of exposed

 private:
  enum class Seen : uint8_t { Nothing, Undefined, Executed };
  [[nodiscard]] bool exposed(size_t form) const;

  const std::vector<Form>& forms_;
  std::vector<Seen> state_;
};

}  // namespace caisson::cpufuzz
