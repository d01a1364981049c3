#include "cli/unpack.h"

#include <random>
#include <string>

#include <gtest/gtest.h>
#include <lzma.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/fd.h"

namespace caisson::cli {
namespace {

std::string packed(const std::string& kind, const std::string& bytes) {
  std::string out(bytes.size() + 4096, '\0');
  auto* const to = reinterpret_cast<uint8_t*>(out.data());
  const auto* const from = reinterpret_cast<const uint8_t*>(bytes.data());
  size_t size = 0;
  if (kind == "zst") {
    size = ::ZSTD_compress(to, out.size(), from, bytes.size(), 1);
  } else if (kind == "xz") {
    ::lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, nullptr, from, bytes.size(), to, &size, out.size());
  } else {
    z_stream stream{};
    ::deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    stream.next_in = const_cast<Bytef*>(from);
    stream.avail_in = static_cast<uInt>(bytes.size());
    stream.next_out = to;
    stream.avail_out = static_cast<uInt>(out.size());
    ::deflate(&stream, Z_FINISH);
    size = stream.total_out;
    ::deflateEnd(&stream);
  }
  out.resize(size);
  return out;
}

struct Unpacked {
  Result<> done;
  std::string bytes{};
  uint64_t room = 0;  // in bytes, that the file takes
};
Unpacked unpacked(const std::string& kind, const std::string& bytes, uint64_t most = uint64_t{1} << 30) {
  const Fd from{::memfd_create("from", MFD_CLOEXEC)};
  const Fd to{::memfd_create("to", MFD_CLOEXEC)};
  EXPECT_EQ(::write(from.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  Unpacked result{unpack(from.get(), kind, to.get(), {.most_bytes = most})};
  struct stat status {};
  ::fstat(to.get(), &status);
  result.room = static_cast<uint64_t>(status.st_blocks) * 512;
  result.bytes.resize(static_cast<size_t>(status.st_size));
  EXPECT_EQ(::pread(to.get(), result.bytes.data(), result.bytes.size(), 0), status.st_size);
  return result;
}

// A megabyte of data between holes.
std::string disk() {
  std::string bytes(8 << 20, '\0');
  std::minstd_rand random{3};
  for (size_t at = 3 << 20; at < 4 << 20; ++at) bytes[at] = static_cast<char>(random() >> 16);
  bytes += "tail";
  return bytes;
}

class Unpack : public testing::TestWithParam<const char*> {};

TEST_P(Unpack, ComesBackWithHoles) {
  const std::string bytes = disk();
  const auto result = unpacked(GetParam(), packed(GetParam(), bytes));
  ASSERT_TRUE(result.done) << result.done.error().message;
  EXPECT_TRUE(result.bytes == bytes);
  EXPECT_LT(result.room, uint64_t{2} << 20);
}

TEST_P(Unpack, OneStreamAfterAnother) {
  const auto result = unpacked(GetParam(), packed(GetParam(), "first ") + packed(GetParam(), "second"));
  ASSERT_TRUE(result.done) << result.done.error().message;
  EXPECT_EQ(result.bytes, "first second");
}

TEST_P(Unpack, NoMoreThanIsAllowed) {
  const std::string bomb = packed(GetParam(), std::string(64 << 20, '\0'));
  EXPECT_LT(bomb.size(), 500'000u);
  const auto result = unpacked(GetParam(), bomb, 10 << 20);
  ASSERT_FALSE(result.done);
  EXPECT_NE(result.done.error().message.find("10485760 bytes"), std::string::npos);
  EXPECT_EQ(result.room, 0u);
  EXPECT_TRUE(unpacked(GetParam(), bomb, 64 << 20).done);
}

TEST_P(Unpack, WhatIsDamagedIsAnError) {
  const std::string good = packed(GetParam(), disk());
  for (const size_t size : {size_t{0}, size_t{1}, size_t{10}, good.size() / 2, good.size() - 1}) {
    EXPECT_FALSE(unpacked(GetParam(), good.substr(0, size)).done) << size;
  }
  EXPECT_FALSE(unpacked(GetParam(), good + "behind").done);
  EXPECT_FALSE(unpacked(GetParam(), "nonsense").done);
  std::minstd_rand random{5};
  for (int round = 0; round < 100; ++round) {
    std::string bad = good;
    for (int change = 0; change < 3; ++change) bad[random() % bad.size()] ^= static_cast<char>(1 + random() % 255);
    const auto result = unpacked(GetParam(), bad, 16 << 20);
    // zstd and gzip have bytes that mean nothing (a name, a time).
    if (result.done) {
      EXPECT_LE(result.bytes.size(), size_t{16} << 20);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Unpack, testing::Values("gz", "xz", "zst"));

TEST(UnpackOther, IsRefused) { EXPECT_FALSE(unpacked("bz2", "BZh9").done); }

}  // namespace
}  // namespace caisson::cli
