#include "fetch/signature.h"

#include <random>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

namespace caisson::fetch {
namespace {

// Written by Debian's minisign 0.11 for a file that holds "caisson\n".
constexpr std::string_view key_text = "RWSBCHJEhYQqjtGGPMRzX9f6FPaEmpyUgUZ6g15pdmmhRzHHJnWUp2HE";
constexpr std::string_view hashed =
    "untrusted comment: signature from minisign secret key\n"
    "RUSBCHJEhYQqjkZjp/A2v9sZjh7lkSU7IPxYjc81pfog3Y4QhozqDTIf9FBJLP7i0iztt5CVsCmg7K86877vIotyM984wc7gqws=\n"
    "trusted comment: of a test\n"
    "ITKFbs0+jCn300x+ZMCmL47i+FDvQsWcdEbQx1Z29UaEtHW3OW2VB38I5GMIzJLMZhR+tTkiKZ/lk6vXV9NrAA==\n";
constexpr std::string_view whole =
    "untrusted comment: signature from minisign secret key\n"
    "RWSBCHJEhYQqjhNP0u9O/F2QAsMcjL6R/0JGVdzx7KG9rLVI3XlULYan29eYgfhBajh+w3RbTIY8+sbIrIw3hdJoaJ3zwz0Alws=\n"
    "trusted comment: legacy\n"
    "7mZiwdAIG6BpVxMPLNedu4FTbV2kTVB4h5jBcFLRZTz73L1LBB7lUYnQNNK4w2DNhP2L449Hnp5TRiOdW1+iDQ==\n";

Result<std::string> verified(std::string_view signature, std::string_view content, std::string_view key = key_text) {
  const Fd file{::memfd_create("signed", MFD_CLOEXEC)};
  EXPECT_EQ(::write(file.get(), content.data(), content.size()), static_cast<ssize_t>(content.size()));
  ::lseek(file.get(), 0, SEEK_SET);
  const auto parsed_key = parse_key(key);
  if (!parsed_key) return std::unexpected(parsed_key.error());
  const auto parsed = parse_signature(signature);
  if (!parsed) return std::unexpected(parsed.error());
  return verify(*parsed_key, *parsed, file.get());
}

TEST(Signature, OfMinisignHolds) {
  EXPECT_EQ(verified(hashed, "caisson\n").value_or("none"), "of a test");
  EXPECT_EQ(verified(whole, "caisson\n").value_or("none"), "legacy");
  EXPECT_TRUE(
      verified(hashed, "caisson\n", "untrusted comment: a file of minisign's\n" + std::string{key_text} + "\n"));
}

TEST(Signature, EveryChangeIsNoticed) {
  EXPECT_FALSE(verified(hashed, "caisson"));
  EXPECT_FALSE(verified(whole, "caissoN\n"));
  std::minstd_rand random{1};
  for (const std::string_view good : {hashed, whole}) {
    const size_t first = good.find('\n') + 1;  // the first comment counts for nothing
    for (size_t at = first; at + 1 < good.size(); ++at) {
      std::string bad{good};
      bad[at] = static_cast<char>(bad[at] ^ 1);
      EXPECT_FALSE(verified(bad, "caisson\n")) << at;
    }
    for (size_t size = 0; size + 1 < good.size(); ++size)
      EXPECT_FALSE(verified(good.substr(0, size), "caisson\n")) << size;
  }
  for (size_t at = 0; at < key_text.size(); ++at) {
    std::string bad{key_text};
    bad[at] = bad[at] == 'A' ? 'B' : 'A';
    if (bad != key_text) {
      EXPECT_FALSE(verified(hashed, "caisson\n", bad)) << at;
    }
  }
  for (int round = 0; round < 2000; ++round) {
    std::string bad{hashed};
    for (int change = 0; change < 4; ++change) bad[random() % bad.size()] = static_cast<char>(random() >> 4);
    (void)parse_signature(bad);
    (void)parse_key(bad);
  }
}

}  // namespace
}  // namespace caisson::fetch
