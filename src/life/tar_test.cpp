#include "life/tar.h"

#include <random>

#include <gtest/gtest.h>

namespace caisson::life {
namespace {

TEST(Tar, HeadersComeBack) {
  for (const uint64_t size :
       {uint64_t{0}, uint64_t{1}, (uint64_t{1} << 33) - 1, uint64_t{1} << 33, uint64_t{1} << 50}) {
    const auto entry = parse_tar_header(tar_header("disk.qcow2", size, 1'700'000'000));
    ASSERT_TRUE(entry && *entry) << size;
    EXPECT_EQ((*entry)->name, "disk.qcow2");
    EXPECT_EQ((*entry)->size, size);
  }
  const auto end = parse_tar_header(TarBlock{});
  ASSERT_TRUE(end);
  EXPECT_FALSE(*end);
}

TEST(Tar, RefusesWhatLeadsElsewhere) {
  for (const char* name : {"../disk.raw", "/etc/passwd", "a/b", ""}) {
    EXPECT_FALSE(parse_tar_header(tar_header(name, 1, 0))) << name;
  }
  EXPECT_TRUE(parse_tar_header(tar_header("./disk.raw", 1, 0)));
}

TEST(Tar, EveryChangedBitIsNoticed) {
  const TarBlock good = tar_header("manifest.json", 4711, 12);
  for (size_t bit = 0; bit < tar_block * 8; ++bit) {
    TarBlock bad = good;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    // The checksum's two last bytes end its digits and count for nothing, and its first may be a space.
    if ((bit / 8 >= 154 && bit / 8 < 156) || bad[148] == ' ') continue;
    EXPECT_FALSE(parse_tar_header(bad)) << bit;
  }
}

TEST(Tar, TakesAnything) {
  std::minstd_rand random{7};
  for (int round = 0; round < 20000; ++round) {
    TarBlock block = tar_header("x", random(), random());
    for (int change = 0; change < 4; ++change) block[random() % tar_block] = static_cast<uint8_t>(random());
    // With a sum that is right, so that what is behind it is reached.
    uint64_t sum = 0;
    for (size_t at = 0; at < tar_block; ++at) sum += at >= 148 && at < 156 ? uint8_t{' '} : block[at];
    const std::string digits = fmt::format("{:06o}", sum);
    std::copy(digits.begin(), digits.end(), block.begin() + 148);
    block[154] = 0;
    const auto entry = parse_tar_header(block);
    if (entry && *entry) {
      EXPECT_EQ((*entry)->name.find('/'), std::string::npos);
      EXPECT_LE((*entry)->size, uint64_t{1} << 62);
    }
  }
}

}  // namespace
}  // namespace caisson::life
