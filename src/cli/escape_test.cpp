#include "cli/escape.h"

#include <vector>

#include <gtest/gtest.h>

namespace caisson::cli {
namespace {

struct Fed {
  std::string out;
  std::vector<EscapeAction> actions;
};

Fed feed(Escape& escape, std::string_view input) {
  Fed fed;
  while (!input.empty()) {
    const auto action = escape.feed(input, fed.out);
    if (action != EscapeAction::None) fed.actions.push_back(action);
  }
  return fed;
}

TEST(Escape, PassesEverythingElse) {
  Escape escape;
  std::string all;
  for (int i = 0; i < 256; ++i) {
    if (i != Escape::key) all.push_back(static_cast<char>(i));
  }
  EXPECT_EQ(feed(escape, all).out, all);
}

TEST(Escape, FindsItsActionsInOrder) {
  Escape escape;
  const auto fed = feed(escape,
                        "a\x1dpb\x1drc\x1dhd\x1dxe\x1d\x1d"
                        "f\x1dq");
  EXPECT_EQ(fed.out,
            "abcde\x1d"
            "f");
  using enum EscapeAction;
  EXPECT_EQ(fed.actions, (std::vector{PowerButton, Reset, Help, Help, Quit}));
}

TEST(Escape, WorksAcrossReads) {
  Escape escape;
  EXPECT_EQ(feed(escape, "a\x1d").out, "a");
  EXPECT_EQ(feed(escape, "q").actions, std::vector{EscapeAction::Quit});
  EXPECT_EQ(feed(escape, "q").out, "q");
}

}  // namespace
}  // namespace caisson::cli
