#include "jit/decode/shape_cache.h"

#include <cstdio>
#include <random>
#include <string>

#include <gtest/gtest.h>

namespace caisson::jit {
namespace {

using Bytes = std::array<uint8_t, 16>;

std::string hex(std::span<const uint8_t> bytes) {
  std::string text;
  char digits[4];
  for (const uint8_t byte : bytes) {
    std::snprintf(digits, sizeof digits, "%02x ", byte);
    text += digits;
  }
  return text;
}

class Shapes : public testing::TestWithParam<unsigned> {
 protected:
  // decode() must say what the tables say, to the last field, whatever it knows already.
  void expect_same(std::span<const uint8_t> code) {
    Instruction known{}, fresh{};
    const DecodeStatus by_memory = decode(code, GetParam(), known);
    const DecodeStatus by_tables = decode_by_tables(code, GetParam(), fresh, nullptr);
    ASSERT_EQ(by_memory, by_tables) << hex(code);
    if (by_tables == DecodeStatus::Ok) {
      ASSERT_EQ(known, fresh) << hex(code);
    }
  }
  // Whether decode() has it by its shape.
  [[nodiscard]] bool is_kept(std::initializer_list<uint8_t> code) {
    Bytes bytes{};
    std::copy(code.begin(), code.end(), bytes.begin());
    const Shape shape = Shape::of(bytes, GetParam());
    Instruction in{}, out{};
    ShapeCache::Values values;
    if (shape.size == 0 || decode_by_tables(bytes, GetParam(), in, &values) != DecodeStatus::Ok) return false;
    cache_.put(shape, GetParam(), in, values);
    return cache_.find(shape, bytes, GetParam(), out) && out == in;
  }

  std::mt19937_64 random_{7};
  ShapeCache cache_;
};

// Every opcode of the maps with and without prefixes, many a ModRM, several SIBs; with several values behind.
TEST_P(Shapes, SayWhatTheTablesSayForEveryOpcode) {
  const std::vector<std::vector<uint8_t>> starts = {{},
                                                    {0x66},
                                                    {0xf2},
                                                    {0xf3},
                                                    {0xf0},
                                                    {0x48},
                                                    {0x41},
                                                    {0x66, 0x4f},
                                                    {0xf3, 0x48},
                                                    {0x64},
                                                    {0x67},
                                                    {0x2e, 0x66},
                                                    {0x0f},
                                                    {0x66, 0x0f},
                                                    {0xf3, 0x0f},
                                                    {0xf2, 0x0f},
                                                    {0x48, 0x0f},
                                                    {0x66, 0x0f, 0x38},
                                                    {0x0f, 0x38},
                                                    {0x0f, 0x3a},
                                                    {0x66, 0x0f, 0x3a},
                                                    {0xc5, 0xf8},
                                                    {0xc5, 0xfd},
                                                    {0xc4, 0xe2, 0x79},
                                                    {0xc4, 0xe3, 0xfd},
                                                    {0xc4, 0x42, 0xfb}};
  for (const auto& start : starts) {
    for (unsigned opcode = 0; opcode < 256; ++opcode) {
      for (unsigned modrm = 0; modrm < 256; modrm += 1 + static_cast<unsigned>(random_() % 3)) {
        Bytes bytes;
        std::copy(start.begin(), start.end(), bytes.begin());
        bytes[start.size()] = static_cast<uint8_t>(opcode);
        bytes[start.size() + 1] = static_cast<uint8_t>(modrm);
        bytes[start.size() + 2] = static_cast<uint8_t>(random_());
        for (unsigned values = 0; values < 3; ++values) {
          for (size_t i = start.size() + 3; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(random_());
          expect_same(bytes);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(Shapes, SayWhatTheTablesSayForRandomBytes) {
  constexpr std::array<uint8_t, 20> liked = {0x48, 0x66, 0x0f, 0xf3, 0xf2, 0x67, 0x38, 0x3a, 0xc4, 0xc5,
                                             0x62, 0x8f, 0x83, 0x81, 0x8b, 0x89, 0x24, 0x05, 0x40, 0x65};
  for (unsigned round = 0; round < 300'000; ++round) {
    Bytes bytes;
    for (uint8_t& byte : bytes) {
      byte = random_() % 3 == 0 ? liked[random_() % liked.size()] : static_cast<uint8_t>(random_());
    }
    // Also cut off: then the same shape with other values, and less of them.
    const size_t size = random_() % 4 == 0 ? random_() % bytes.size() : bytes.size();
    expect_same(std::span{bytes}.first(size));
    bytes[15] ^= 0x80;
    bytes[7] ^= 0x80;
    bytes[6] ^= 0x81;
    expect_same(bytes);
    if (HasFatalFailure()) return;
  }
}

TEST_P(Shapes, AreKeptForTheUsual) {
  EXPECT_TRUE(is_kept({0x89, 0x45, 0xfc}));                    // mov [rbp-4], eax
  EXPECT_TRUE(is_kept({0x8b, 0x84, 0x24, 0x80, 0, 0, 0}));     // mov eax, [rsp+0x80]
  EXPECT_TRUE(is_kept({0x81, 0xc3, 0xff, 0xff, 0xff, 0xff}));  // add ebx, -1
  EXPECT_TRUE(is_kept({0xe8, 1, 2, 3, 4}));                    // call
  EXPECT_TRUE(is_kept({0x74, 0x10}));                          // je
  EXPECT_TRUE(is_kept({0x0f, 0x84, 1, 2, 3, 4}));              // je
  EXPECT_TRUE(is_kept({0x0f, 0xb6, 0xc0}));                    // movzx eax, al
  EXPECT_TRUE(is_kept({0xb8, 1, 2, 3, 4}));                    // mov eax, imm32
  EXPECT_TRUE(is_kept({0xc3}));                                // ret
  EXPECT_TRUE(is_kept({0x66, 0x0f, 0x6f, 0x44, 0x24, 0x10}));  // movdqa
  EXPECT_TRUE(is_kept({0x8b, 0x05, 1, 2, 3, 4}));              // mov eax, [rip+…]
  EXPECT_EQ(is_kept({0xc5, 0xfd, 0x6f, 0x44, 0x24, 0x20}), GetParam() == 64);
  EXPECT_FALSE(is_kept({0xc8, 0x10, 0x00, 0x01}));  // enter: two values
  EXPECT_FALSE(is_kept({0xa1, 1, 2, 3, 4, 5, 6, 7, 8}));
}

INSTANTIATE_TEST_SUITE_P(CodeBits, Shapes, testing::Values(32u, 64u));

}  // namespace
}  // namespace caisson::jit
