#include "base/start_up_memory.h"

#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace caisson {
namespace {

// Resident pages that map files, KiB (proc(5)).
long resident_file_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssFile:")) return std::stol(line.substr(8));
  }
  return -1;
}

TEST(StartUpMemory, IsGivenBackAndWhatIsNeededComesAgain) {
  const long before = resident_file_kib();
  ASSERT_GT(before, 0);
  give_back_start_up_memory();
  EXPECT_LT(resident_file_kib(), before);
}

}  // namespace
}  // namespace caisson
