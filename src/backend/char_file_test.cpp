#include "backend/char_file.h"

#include <array>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace caisson {
namespace {

std::span<const uint8_t> bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(CharFile, KeepsWhatIsWritten) {
  Fd file{::memfd_create("serial", MFD_CLOEXEC)};
  ASSERT_TRUE(file.valid());
  const Fd reader{::dup(file.get())};
  CharFile sink(std::move(file), "--serial2 x");
  EXPECT_EQ(sink.write(bytes("one ")), 4u);
  EXPECT_EQ(sink.write(bytes("two")), 3u);
  std::array<char, 16> got{};
  EXPECT_EQ(::pread(reader.get(), got.data(), got.size(), 0), 7);
  EXPECT_STREQ(got.data(), "one two");
}

TEST(CharFile, AFullDiskStopsNobody) {
  Fd full{::open("/dev/full", O_WRONLY | O_CLOEXEC)};
  ASSERT_TRUE(full.valid());
  CharFile sink(std::move(full), "--serial2 /dev/full");
  EXPECT_EQ(sink.write(bytes("lost")), 4u);
  EXPECT_EQ(sink.write(bytes("lost, too")), 9u);
}

}  // namespace
}  // namespace caisson
