#include "jit/translate/departure.h"

#include <gtest/gtest.h>

#include <array>

namespace caisson::jit {
namespace {

TEST(Departure, IsReadAsItWasWritten) {
  const std::array<uint64_t, 5> targets{0, 0xfff, 0xffff'ffff'8123'4567, 0xffff'8880'0000'1000, 0xc100'0000};
  for (const uint64_t target : targets) {
    for (unsigned bits = 0; bits < 32; ++bits) {
      std::array<uint8_t, 256> code{};
      Emitter out(code.data(), code.data(), code.size());
      out.u32(0);  // the jump to be chained
      const Departure in{.kind = static_cast<Departure::Kind>(bits & 3),
                         .flags_in_memory = (bits & 4) != 0,
                         .cross_page = (bits & 8) != 0,
                         .careful = (bits & 16) != 0,
                         .target = target,
                         .word = 0x1234'5678};
      in.emit(out, code.data(), bits & 1 ? 0 : 2);
      Departure read;
      const uint8_t* at = code.data() + 4 + 5;  // behind the call
      ASSERT_EQ(at + read.read(at), code.data() + out.size());
      EXPECT_EQ(read.kind, in.kind);
      EXPECT_EQ(read.flags_in_memory, in.flags_in_memory);
      EXPECT_EQ(read.cross_page, in.cross_page);
      EXPECT_EQ(read.careful, in.careful);
      EXPECT_EQ(read.target, target);
      EXPECT_EQ(read.slot, bits & 1 ? 0 : reinterpret_cast<uint64_t>(code.data()) + 2);
      EXPECT_EQ(read.word, in.kind == Departure::Kind::System ? in.word : 0);
    }
  }
}

TEST(IndirectBranch, IsReadAsItWasWritten) {
  std::array<uint8_t, 64> code{};
  Emitter out(code.data(), code.data(), code.size());
  const IndirectBranch in{.guest_offset = 0x0fed, .undo = -65543};
  in.emit(out, code.data());
  EXPECT_EQ(out.size(), 5 + IndirectBranch::size);
  IndirectBranch read;
  read.read(code.data() + 5);
  EXPECT_EQ(read.guest_offset, in.guest_offset);
  EXPECT_EQ(read.undo, in.undo);
}

}  // namespace
}  // namespace caisson::jit
