// Short runs of caisson-cpu-fuzz with fixed seeds. CAISSON_TEST_ROUNDS makes them longer.
#include <gtest/gtest.h>

#include <cstdlib>

#include "cpufuzz/compare.h"
#include "cpufuzz/coverage.h"

namespace caisson::cpufuzz {
namespace {

uint64_t rounds(uint64_t otherwise) {
  const char* text = std::getenv("CAISSON_TEST_ROUNDS");
  return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

TEST(CpuFuzz, ProgramsWithJumpsLoopsAndCalls) {
  auto comparison = Comparison::create();
  if (!comparison) GTEST_SKIP() << comparison.error().message;
  uint64_t whole = 0;
  const uint64_t count = rounds(1000);
  for (uint64_t seed = 1; seed <= count; ++seed) {
    const Flow flow = random_flow(seed);
    Outcome expected;
    const std::string text = comparison->difference(flow, &expected);
    if (expected.state.rip == flow.state.rip + flow.assemble().end) ++whole;
    if (text.empty()) continue;
    const Flow small = comparison->shrink(flow);
    FAIL() << "caisson-cpu-fuzz --flow --seed " << seed << " --rounds 1\n"
           << comparison->difference(small) << listing({.code = small.assemble().code, .state = small.state});
  }
  EXPECT_GT(whole, count / 2);  // most run to their end, or they would test little
}

TEST(CpuFuzz, EveryFormOfEveryInstruction) {
  auto comparison = Comparison::create();
  if (!comparison) GTEST_SKIP() << comparison.error().message;
  const std::vector<Form> forms = all_forms();
  Coverage coverage(forms);
  for (uint64_t seed = 1; seed <= rounds(1); ++seed) {
    for (size_t i = 0; i < forms.size(); ++i) {
      if (forms[i].reason != nullptr) continue;
      const auto single = single_of(forms, i, seed);
      if (!single) continue;
      Outcome expected;
      const std::string text = difference(*comparison, *single, &expected);
      coverage.ran(i, *single, expected);
      ASSERT_EQ(text, "") << "caisson-cpu-fuzz --form " << i << " --seed " << seed << "\n"
                          << forms[i].name << "\n"
                          << listing({.code = single->code, .state = single->state});
    }
  }
  EXPECT_GT(coverage.share(), 0.9);
}

}  // namespace
}  // namespace caisson::cpufuzz
