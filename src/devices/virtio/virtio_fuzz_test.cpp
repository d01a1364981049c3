// Runs the fuzz target on random inputs in every test run, so that it never rots; coverage-guided runs find the rest.
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "base/log.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

#include "devices/virtio/virtio_fuzz.cpp"  // the target itself; fuzz sources belong to no library

namespace caisson::virtio {
namespace {

TEST(VirtioFuzz, RandomInputsDoNoHarm) {
  std::mt19937 random(20230610);
  std::vector<uint8_t> input(2000);
  for (unsigned round = 0; round < 300; ++round) {
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    EXPECT_EQ(LLVMFuzzerTestOneInput(input.data(), input.size()), 0);
  }
  log::set_level(log::Level::Info);
}

}  // namespace
}  // namespace caisson::virtio
