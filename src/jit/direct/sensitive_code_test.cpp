#include "jit/direct/sensitive_code.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

namespace caisson::jit {
namespace {

std::array<uint8_t, 4096> page_with(const std::vector<uint8_t>& bytes, size_t at) {
  std::array<uint8_t, 4096> page;
  page.fill(0x90);
  std::ranges::copy(bytes, page.begin() + static_cast<std::ptrdiff_t>(at));
  return page;
}

TEST(SensitiveCode, FindsWhatTellsTheHostsState) {
  const std::vector<std::vector<uint8_t>> found{
      {0x0f, 0x01, 0xd0},              // xgetbv
      {0x0f, 0x03, 0xc0},              // lsl eax, eax
      {0x48, 0x0f, 0xae, 0x27},        // xsave64 [rdi]
      {0x0f, 0xae, 0x2f},              // xrstor [rdi]
      {0x0f, 0xae, 0x74, 0x24, 0x40},  // xsaveopt [rsp+40h]
      {0x0f, 0xc7, 0x64, 0x24, 0x40},  // xsavec [rsp+40h]
      {0xf3, 0x0f, 0xc7, 0xf8},        // rdpid rax
  };
  for (const auto& bytes : found) {
    for (const size_t at : {size_t{0}, size_t{1000}, 4096 - bytes.size()}) {
      // (Without its prefix RDPID is another instruction.)
      EXPECT_TRUE(has_sensitive_code(page_with(bytes, at))) << int{bytes[1]} << " " << int{bytes[2]} << " at " << at;
    }
  }
}

TEST(SensitiveCode, LetsTheRestRun) {
  const std::vector<std::vector<uint8_t>> harmless{
      {0x0f, 0x05},              // syscall: stops
      {0x0f, 0xa2},              // cpuid: faults
      {0x0f, 0x31},              // rdtsc: faults
      {0x0f, 0x01, 0xf9},        // rdtscp: faults
      {0x0f, 0xae, 0xe8},        // lfence
      {0x0f, 0xae, 0xf0},        // mfence
      {0x0f, 0xae, 0x14, 0x24},  // ldmxcsr [rsp]
      {0x0f, 0xc7, 0x0f},        // cmpxchg8b [rdi]
      {0x0f, 0xc7, 0xf0},        // rdrand eax
      {0xe8, 0x0f, 0x03, 0xc2, 0xb3},
      {0x0f, 0xb6, 0xc0},
  };
  for (const auto& bytes : harmless) EXPECT_FALSE(has_sensitive_code(page_with(bytes, 77)));
  EXPECT_FALSE(has_sensitive_code(page_with({0x0f}, 4095)));
  EXPECT_FALSE(has_sensitive_code({}));
}

}  // namespace
}  // namespace caisson::jit
