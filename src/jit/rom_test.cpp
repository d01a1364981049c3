// Code and data in read-only memory: run and read as in RAM, never written.
#include <gtest/gtest.h>

#include <algorithm>

#include "jit/translate/test_bench.h"

namespace caisson::jit {
namespace {

using namespace test;

// What the guest writes where its ROM is.
class Writes final : public Device {
 public:
  [[nodiscard]] std::string_view name() const override { return "writes"; }
  uint64_t read(unsigned, uint64_t, unsigned) override {
    ++reads;
    return 0;
  }
  void write(unsigned, uint64_t offset, unsigned size, uint64_t value) override {
    seen.push_back({offset, size, value});
  }
  void reset() override {}
  void save(fields::Buffer&) const override {}
  Result<> restore(std::span<const uint8_t>) override { return {}; }

  struct Write {
    uint64_t offset;
    unsigned size;
    uint64_t value;
    bool operator==(const Write&) const = default;
  };
  std::vector<Write> seen;
  unsigned reads = 0;
};

constexpr uint64_t rom_size = 2 * page_size, rom_start = GuestMemory::high_start - rom_size, entry = rom_start + 0xff2;

std::vector<uint8_t> rom_image() {
  std::vector<uint8_t> image(rom_size);
  for (size_t i = 0; i < image.size(); ++i) image[i] = static_cast<uint8_t>(i * 7);
  constexpr uint8_t program[] = {
      0xb9, 0x64, 0,    0,    0,           //    mov $100, %ecx
      0x48, 0x03, 0x03,                    // 1: add (%rbx), %rax
      0x48, 0x89, 0x43, 0x08,              //    mov %rax, 8(%rbx)
      0x48, 0x8b, 0x53, 0x08,              //    mov 8(%rbx), %rdx     crosses into the second page
      0xf0, 0x48, 0x01, 0x43, 0x08,        //    lock add %rax, 8(%rbx)
      0xff, 0xc9,                          //    dec %ecx
      0x75, 0xec,                          //    jnz 1b
      0x48, 0xc7, 0xc1, 0x04, 0,    0, 0,  //    mov $4, %rcx
      0x48, 0x89, 0xdf,                    //    mov %rbx, %rdi
      0x48, 0x8d, 0x73, 0x40,              //    lea 64(%rbx), %rsi
      0xf3, 0x48, 0xa5,                    //    rep movsq
      0x0f, 0x0b,                          //    ud2
  };
  std::ranges::copy(program, image.begin() + 0xff2);
  return image;
}

class Rom : public testing::TestWithParam<bool> {
 protected:
  Rom() { bench.bus().map(Space::Memory, rom_start, rom_size, writes, 0); }
  CpuState run(uint64_t rbx) {
    std::array<uint64_t, 16> gpr{};
    gpr[x86::Rbx] = rbx;
    gpr[x86::Rsp] = data + 0x8000;
    return bench.run({}, gpr, x86::rflags::fixed, 1, entry);
  }
  [[nodiscard]] bool unchanged() const { return std::memcmp(bench.memory() + rom_start, image.data(), rom_size) == 0; }
  uint64_t word(uint64_t at) const {
    uint64_t value = 0;
    std::memcpy(&value, &image[at], 8);
    return value;
  }

  const std::vector<uint8_t> image = rom_image();
  Writes writes;
  Bench bench{GetParam() ? JitOptions{} : Bench::interpreter(), image};
};

TEST_P(Rom, CodeRunsFromItAndReadsItAndItsWritesGoToTheBus) {
  for (unsigned round = 0; round < 3; ++round) {
    writes.seen.clear();
    const CpuState end = run(rom_start + 0x100);
    EXPECT_EQ(end.rip, entry + 42);
    EXPECT_EQ(end.gpr[x86::Rax], 100 * word(0x100));
    EXPECT_EQ(end.gpr[x86::Rdx], word(0x108));
    ASSERT_EQ(writes.seen.size(), 204u);
    EXPECT_EQ(writes.seen[0], (Writes::Write{0x108, 8, word(0x100)}));
    EXPECT_EQ(writes.seen[1], (Writes::Write{0x108, 8, word(0x100) + word(0x108)}));
    EXPECT_EQ(writes.seen[203], (Writes::Write{0x118, 8, word(0x158)}));
    EXPECT_EQ(writes.reads, 0u);
    ASSERT_TRUE(unchanged());
  }
  EXPECT_EQ(bench.engine().cache().statistics().blocks != 0, GetParam());
}

// To where the code itself is: it stays as it is, and what is translated as well.
TEST_P(Rom, CodeCannotChangeItself) {
  const CpuState end = run(entry - 8);
  EXPECT_EQ(end.rip, entry + 42);
  EXPECT_EQ(end.gpr[x86::Rax], 100 * word(0xff2 - 8));
  EXPECT_TRUE(unchanged());
}

TEST_P(Rom, ItRunsAfterTranslationsWereDropped) {
  const CpuState before = run(data);
  EXPECT_TRUE(writes.seen.empty());
  bench.engine().memory_replaced();
  const CpuState after = run(data);
  EXPECT_EQ(before.gpr, after.gpr);
  EXPECT_TRUE(unchanged());
}

TEST_P(Rom, ItIsNoRam) {
  GuestMemory& memory = bench.guest_memory();
  EXPECT_FALSE(memory.contains(rom_start, 1));
  EXPECT_FALSE(memory.write_object(rom_start, uint64_t{0}));
  uint64_t value = 0;
  EXPECT_FALSE(memory.read_object(rom_start, value));
}

INSTANTIATE_TEST_SUITE_P(Engines, Rom, testing::Bool(),
                         [](const auto& engine) { return engine.param ? "Translated" : "Interpreted"; });

}  // namespace
}  // namespace caisson::jit
