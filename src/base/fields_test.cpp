#include "base/fields.h"

#include <gtest/gtest.h>

namespace caisson::fields {
namespace {

enum class Mode : uint16_t { Off, On = 0x1234 };

struct Inner {
  uint8_t low = 1;
  int64_t wide = -2;
  bool operator==(const Inner&) const = default;
  static constexpr auto fields() { return table<Inner>(row<7>("low", &Inner::low), row<2>("wide", &Inner::wide)); }
};

struct Outer {
  uint32_t number = 5;
  bool flag = true;
  Mode mode = Mode::On;
  std::array<uint16_t, 3> words{1, 2, 0xffff};
  Inner inner;
  std::array<Inner, 2> inners{};
  Bytes<4> bytes{{9, 8}};
  bool operator==(const Outer&) const = default;
  static constexpr auto fields() {
    return table<Outer>(row<1>("number", &Outer::number), row<2>("flag", &Outer::flag), row<3>("mode", &Outer::mode),
                        row<4>("words", &Outer::words), row<5>("inner", &Outer::inner),
                        row<6>("inners", &Outer::inners), row<0x1ff>("bytes", &Outer::bytes));
  }
};

Buffer saved(const Outer& state) {
  Buffer out;
  save(state, out);
  return out;
}

std::string restore_error(Buffer in) {
  Outer state;
  const auto done = restore(state, in);
  return done ? "" : done.error().message;
}

TEST(Fields, SaveChangeRestoreCompare) {
  const Outer original;
  Outer state = original;
  perturb(state);
  EXPECT_EQ(diff(original, state), (std::vector<std::string>{"number", "flag", "mode", "words", "inner.low",
                                                             "inner.wide", "inners", "bytes"}));
  const Outer changed = state;
  ASSERT_TRUE(restore(state, saved(original)));
  EXPECT_EQ(state, original);
  EXPECT_TRUE(diff(original, state).empty());
  ASSERT_TRUE(restore(state, saved(changed)));
  EXPECT_EQ(state, changed);
}

TEST(Fields, SavedFormIsLittleEndianIdSizeValue) {
  Buffer out;
  save(Inner{.low = 0xab, .wide = 0x0102030405060708}, out);
  EXPECT_EQ(out, (Buffer{7, 0, 1, 0, 0, 0, 0xab, 2, 0, 8, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1}));
}

TEST(Fields, MissingFieldKeepsItsValue) {
  Inner state{.low = 3, .wide = 4};
  ASSERT_TRUE(restore(state, Buffer{7, 0, 1, 0, 0, 0, 0x11}));
  EXPECT_EQ(state, (Inner{.low = 0x11, .wide = 4}));
}

TEST(Fields, UnknownIdIsRefused) {
  EXPECT_EQ(restore_error({99, 0, 0, 0, 0, 0}), "saved state has an unknown field 99; it comes from a newer version");
}

TEST(Fields, WrongSizesAreRefused) {
  EXPECT_EQ(restore_error({1, 0, 3, 0, 0, 0, 1, 2, 3}), "saved field number is cut short");
  EXPECT_EQ(restore_error({1, 0, 5, 0, 0, 0, 1, 2, 3, 4, 5}), "saved field number is too long");
  EXPECT_EQ(restore_error({1, 0, 9, 0, 0, 0, 1}), "saved field 1 claims 9 bytes where 1 are left");
  EXPECT_EQ(restore_error({2, 0, 1, 0, 0, 0, 2}), "saved field flag has the value 2, a flag is 0 or 1");
  EXPECT_EQ(restore_error({0xff, 1, 9, 0, 0, 0, 5, 0, 0, 0, 1, 2, 3, 4, 5}),
            "saved field bytes has 5 bytes, at most 4 are allowed");
  EXPECT_EQ(restore_error({0xff, 1, 5, 0, 0, 0, 5, 0, 0, 0, 1}), "saved field bytes claims 5 bytes where 1 are left");
}

TEST(Fields, EveryCutOfASavedStateIsRefusedOrHarmless) {
  const Buffer whole = saved(Outer{});
  for (size_t size = 0; size < whole.size(); ++size) {
    Outer state;
    const Buffer cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    if (!restore(state, cut)) continue;
    EXPECT_TRUE(diff(state, Outer{}).empty()) << "cut at " << size;
  }
}

TEST(Fields, EveryBitFlipIsHandled) {
  const Buffer whole = saved(Outer{});
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    Buffer broken = whole;
    broken[bit / 8] = static_cast<uint8_t>(broken[bit / 8] ^ (1 << bit % 8));
    Outer state;
    if (!restore(state, broken)) continue;
    EXPECT_LE(state.bytes.data.size(), 4u);
  }
}

}  // namespace
}  // namespace caisson::fields
