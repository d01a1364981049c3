#include "machine/serial_console.h"

#include <gtest/gtest.h>

namespace caisson::machine {
namespace {

void feed(PanicScanner& scanner, std::string_view text) {
  scanner.scan({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

TEST(PanicScanner, FindsAPanicAcrossPieces) {
  PanicScanner scanner;
  std::string seen;
  scanner.set_handler([&](std::string line) { seen = std::move(line); });
  feed(scanner, "[    1.0] Kernel pan");
  EXPECT_FALSE(scanner.crashed());
  feed(scanner, "ic - not syncing: VFS: Unable to mount root fs\r\n");
  EXPECT_TRUE(scanner.crashed());
  EXPECT_EQ(seen, "Kernel panic - not syncing: VFS: Unable to mount root fs");
}

TEST(PanicScanner, AnOrderlyRebootIsNoCrash) {
  PanicScanner scanner;
  feed(scanner, "an old log says: Kernel panic - not syncing: x\n[  9.0] reboot: Restarting system\n");
  EXPECT_FALSE(scanner.crashed());
}

TEST(PanicScanner, ForgetsWhatIsLongAgo) {
  PanicScanner scanner;
  feed(scanner, "Kernel panic - not syncing: x\n");
  for (int i = 0; i < 2000; ++i) feed(scanner, "some other line of output\n");
  EXPECT_FALSE(scanner.crashed());
}

TEST(PanicScanner, BoundsLinesWithoutEnd) {
  PanicScanner scanner;
  feed(scanner, std::string(100'000, 'a') + "Kernel panic - not syncing\n");
  EXPECT_FALSE(scanner.crashed());
  feed(scanner, "Kernel panic - not syncing: y\n");
  EXPECT_TRUE(scanner.crashed());
}

}  // namespace
}  // namespace caisson::machine
