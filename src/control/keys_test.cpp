#include "control/keys.h"

#include <gtest/gtest.h>

namespace caisson::control {
namespace {

using Events = std::vector<KeyEvent>;

TEST(Keys, CharactersAndShift) {
  EXPECT_EQ(*parse_keys("a"), (Events{{0x1e, false, true}, {0x1e, false, false}}));
  EXPECT_EQ(*parse_keys("|"),
            (Events{{0x2a, false, true}, {0x2b, false, true}, {0x2b, false, false}, {0x2a, false, false}}));
  EXPECT_EQ(*parse_keys("\n"), *parse_keys("<enter>"));
  EXPECT_EQ(*parse_keys("<<"),
            (Events{{0x2a, false, true}, {0x33, false, true}, {0x33, false, false}, {0x2a, false, false}}));
}

TEST(Keys, EveryPrintableCharacterIsAKey) {
  for (char c = ' '; c <= '~'; ++c) {
    if (c == '<') continue;
    const auto keys = parse_keys(std::string(1, c));
    ASSERT_TRUE(keys) << c;
    EXPECT_GE(keys->size(), 2u);
  }
}

TEST(Keys, NamesAndModifiers) {
  EXPECT_EQ(*parse_keys("<up>"), (Events{{0x48, true, true}, {0x48, true, false}}));
  EXPECT_EQ(*parse_keys("<ctrl-alt-delete>"), (Events{{0x1d, false, true},
                                                      {0x38, false, true},
                                                      {0x53, true, true},
                                                      {0x53, true, false},
                                                      {0x38, false, false},
                                                      {0x1d, false, false}}));
  EXPECT_EQ(*parse_keys("<ctrl-c>"),
            (Events{{0x1d, false, true}, {0x2e, false, true}, {0x2e, false, false}, {0x1d, false, false}}));
}

TEST(Keys, OtherKeyboards) {
  // An e acute by a dead key, an at sign by AltGr; nothing else.
  const Characters keys = [](char32_t c) -> std::vector<Stroke> {
    if (c == U'\u00e9') return {{.code = 0x0d}, {.code = 0x12}};
    if (c == U'@') return {{.code = 0x10, .altgr = true}};
    if (c == U'<') return {{.code = 0x56}};
    return {};
  };
  EXPECT_EQ(*parse_keys("\u00e9", keys),
            (Events{{0x0d, false, true}, {0x0d, false, false}, {0x12, false, true}, {0x12, false, false}}));
  EXPECT_EQ(*parse_keys("@", keys),
            (Events{{0x38, true, true}, {0x10, false, true}, {0x10, false, false}, {0x38, true, false}}));
  EXPECT_EQ(*parse_keys("<<", keys), (Events{{0x56, false, true}, {0x56, false, false}}));
  EXPECT_EQ(parse_keys("<ctrl-@>", keys)->size(), 6u);
  for (const char* text :
       {"a", "<ctrl-\u00e9>", "<ctrl-a>", "\xc3", "\xc3(", "\xff", "\xed\xa0\x80", "\xf4\xbf\xbf\xbf"}) {
    EXPECT_FALSE(parse_keys(text, keys)) << text;
  }
  EXPECT_TRUE(parse_keys("<enter>\n", keys));
}

TEST(Keys, WhatIsNoKeyIsNamed) {
  for (const char* text : {"<nokey>", "<enter", "<ctrl->", "\x80", "\t\x01", "<>", "<"}) {
    EXPECT_FALSE(parse_keys(text)) << text;
  }
  EXPECT_NE(parse_keys("<nokey>").error().message.find("nokey"), std::string::npos);
}

}  // namespace
}  // namespace caisson::control
