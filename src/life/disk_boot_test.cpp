#include "life/disk_boot.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

namespace caisson::life {
namespace {

TEST(DiskBoot, TellsByWhatIsThere) {
  std::string disk(64 * 512, '\0');
  const auto boot = [&] {
    return boot_of_disk([&](uint64_t offset, std::span<uint8_t> bytes) {
      if (offset > disk.size() || bytes.size() > disk.size() - offset) return false;
      std::copy_n(disk.begin() + static_cast<ptrdiff_t>(offset), bytes.size(), bytes.begin());
      return true;
    });
  };
  EXPECT_EQ(boot(), std::nullopt);
  disk[510] = '\x55', disk[511] = '\xaa';
  EXPECT_EQ(boot(), std::nullopt);
  disk[446 + 4] = '\xee';
  EXPECT_EQ(boot(), std::nullopt) << "no GPT";
  disk.replace(512, 8, "EFI PART");
  disk[512 + 72] = 2, disk[512 + 80] = 4, disk[512 + 84] = '\x80';
  EXPECT_EQ(boot(), std::nullopt);
  disk.replace(1024 + 256, 16, "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b", 16);
  EXPECT_EQ(boot(), BootBy::Uefi);
  disk.replace(512 + 80, 4, "\xff\xff\xff\xff");
  EXPECT_EQ(boot(), BootBy::Uefi);
  disk[512 + 72] = 0, disk[512 + 78] = '\x7f';
  EXPECT_EQ(boot(), std::nullopt) << "entries beyond the disk";
  disk[0] = '\xeb';
  EXPECT_EQ(boot(), BootBy::Bios);
  disk.resize(100);
  EXPECT_EQ(boot(), std::nullopt);
}

}  // namespace
}  // namespace caisson::life
