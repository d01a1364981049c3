// Code that means the engine no good, one test for each way: it stays as correct as the interpreter, bounded in memory,
// and a neighbour in the same process does not notice.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "jit/hostile_guest.h"

namespace caisson::jit::test {
namespace {

constexpr size_t small_cache = 128 << 10;

class BadInput : public testing::Test {
 protected:
  HostileGuest translator{true, small_cache}, interpreter{false, small_cache};
  Neighbour neighbour;

  void TearDown() override {
    EXPECT_TRUE(neighbour.untouched());
    EXPECT_LE(translator.engine().cache().bytes_used(), small_cache);
    // A block is at least 16 bytes long.
    EXPECT_LE(translator.engine().cache().blocks_held(), small_cache / 16);
  }

  // Code that ends by HLT: same registers and memory on both.
  void compare(const HostileRecipe& recipe, std::span<const uint8_t> code) {
    std::array<CpuState, 2> states;
    for (HostileGuest* guest : {&translator, &interpreter}) {
      guest->load(recipe, code);
      prepare(*guest);
      ASSERT_EQ(guest->run(2'000'000'000, std::chrono::seconds(60)), ExitReason::Stopped);
      ASSERT_NE(guest->cpu().activity, Activity::Running) << "did not come to its HLT";
      states[guest == &interpreter] = guest->store();
    }
    EXPECT_EQ(states[0].gpr, states[1].gpr);
    EXPECT_EQ(states[0].rip, states[1].rip);
    EXPECT_EQ(std::memcmp(translator.memory().base(), interpreter.memory().base(), HostileGuest::memory_size), 0);
  }

  // Registers that the code counts with.
  void set(HostileGuest& guest, std::initializer_list<std::pair<unsigned, uint64_t>> registers) {
    for (const auto& [reg, value] : registers) guest.cpu().gpr[reg] = value;
  }
  void prepare(HostileGuest& guest) {
    set(guest, {{x86::Rsp, 0x6'0000}, {x86::Rax, 0}, {x86::Rcx, count}, {x86::Rdi, rdi}, {x86::Rsi, 0}});
    guest.cpu().rflags = 2;
    guest.cpu().dr[7] = 0x400;
    if (alias) guest.put(HostileGuest::tables + 0x2000 + 8 * 2, 0x87);
  }
  uint64_t count = 0, rdi = 0x8'0000;
  bool alias = false;  // 4 MiB and up: the same memory again
};

// Whatever comes of it, it comes to an end, within bounds.
TEST_F(BadInput, RandomBytesAsAKernel) {
  std::mt19937_64 random(4711);
  for (unsigned round = 0; round < 300; ++round) {
    std::vector<uint8_t> code(16 + random() % 500);
    for (uint8_t& byte : code) byte = static_cast<uint8_t>(random());
    std::array<uint8_t, HostileRecipe::size> bytes;
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    bytes[0] = static_cast<uint8_t>(round);
    const HostileRecipe recipe = HostileRecipe::from(bytes);
    for (HostileGuest* guest : {&translator, &interpreter}) {
      guest->load(recipe, code);
      ASSERT_NE(guest->run(1000, std::chrono::milliseconds(20)), ExitReason::InternalError);
      ASSERT_FALSE(guest->cpu().fpu_live);
    }
    ASSERT_LE(translator.engine().cache().bytes_used(), small_cache);
  }
}

// Each round of the loop changes the immediate of an instruction inside it.
TEST_F(BadInput, SelfModifyingLoop) {
  count = 20'000;
  compare({}, std::array<uint8_t, 18>{0x48, 0x81, 0xc0, 0x01, 0x00, 0x00, 0x00,  // add rax, 1: the 1 grows
                                      0xff, 0x05, 0xf6, 0xff, 0xff, 0xff,        // inc dword [rip - 10]
                                      0xff, 0xc9,                                // dec ecx
                                      0x75, 0xef,                                // jnz the add
                                      0xf4});
  EXPECT_EQ(translator.cpu().gpr[x86::Rax], 20'000ull * 20'001 / 2);
  EXPECT_GE(translator.engine().cache().statistics().killed, 1000u);
  EXPECT_GE(translator.engine().cache().statistics().drops, 1u);  // the dead were thrown away
}

// Locked accesses over two cache lines: thousands of bus locks would take a host that traps them minutes.
TEST_F(BadInput, LocksOverTwoLines) {
  count = 20'000;
  compare({}, std::array<uint8_t, 10>{0xf0, 0x83, 0x47, 0x3e, 0x01,  // lock add dword [rdi + 62], 1
                                      0xff, 0xc9,                    // dec ecx
                                      0x75, 0xf7,                    // jnz the add
                                      0xf4});
  uint32_t sum = 0;
  ASSERT_TRUE(translator.memory().read_object(rdi + 62, sum));
  EXPECT_EQ(sum, 20'000u);
}

// Two pages of user code, and the only way back is a jump from one to the other: whoever asks the CPU to stop is heard.
TEST_F(BadInput, LoopOverTwoPagesIsLeftWhenAsked) {
  for (const HostileRecipe::Mode mode : {HostileRecipe::Protected, HostileRecipe::Long}) {
    // jmp -14: to what stands before the payload's page, which goes on into it again.
    const std::array<uint8_t, 2> code{0xeb, 0xf0};
    translator.load({.mode = mode, .user = true}, code);
    translator.cpu().gpr[x86::Rax] = 0x8'0000;  // add [rax], al
    translator.run(1000, std::chrono::milliseconds(20));
    EXPECT_GE(translator.cpu().rip, HostileGuest::payload - 14) << int{mode};
    EXPECT_LE(translator.cpu().rip, HostileGuest::payload) << int{mode};
  }
}

TEST_F(BadInput, CodeOnMmio) {
  HostileRecipe recipe{.place = HostileRecipe::Mmio};
  count = 1000;
  // The device's registers read as these bytes, from wherever its page is entered.
  std::array<uint8_t, 16> code{0x48, 0x83, 0xc0, 0x07,  // add rax, 7
                               0xff, 0xc9,              // dec ecx
                               0x75, 0xf8,              // jnz the add
                               0xf4, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90};
  compare(recipe, code);
  EXPECT_EQ(translator.cpu().gpr[x86::Rax], 7000u);
  EXPECT_EQ(translator.engine().cache().blocks_held(), 0u);  // nothing that may change by itself is kept
}

// The last instruction ends at the last byte of RAM; what follows comes from a device.
TEST_F(BadInput, CodeAtTheEndOfMemory) {
  count = 1000;
  const std::array<uint8_t, 9> code{0x48, 0x83, 0xc0, 0x07, 0xff, 0xc9, 0x75, 0xf8, 0xf4};
  compare({.place = HostileRecipe::MemoryEnd}, code);
  EXPECT_EQ(translator.cpu().gpr[x86::Rax], 7000u);
  // The last instruction begins in RAM and ends on the device, which goes on with the code's own bytes:
  // add eax, f4332211h; add eax, 33221105h; hlt.
  compare({.place = HostileRecipe::MemoryEnd}, std::array<uint8_t, 6>{0x05, 0x11, 0x22, 0x33, 0xf4, 0x05});
  EXPECT_EQ(translator.cpu().gpr[x86::Rax], (0xf433'2211u + 0x3322'1105u) & 0xffff'ffffu);
}

// The tables' own pages are mapped by entries in them, and the code rewrites the entry of the page it stores to.
TEST_F(BadInput, SelfPointingPageTables) {
  count = 2000;
  // The page table at 6000h maps itself at 6000h: entry 80h is that of the page at 80000h.
  const std::array<uint8_t, 24> code{0x89, 0x0f,  // mov [rdi], ecx
                                     0x48, 0x81, 0x34, 0x25, 0x00, 0x64,
                                     0x00, 0x00, 0,    0x10, 0,    0,  // xor qword [6400h], 1000h: 80000h or 81000h
                                     0x0f, 0x01, 0x3f,                 // invlpg [rdi]
                                     0x03, 0x07,                       // add eax, [rdi]
                                     0xff, 0xc9,                       // dec ecx
                                     0x75, 0xe9,                       // jnz the mov
                                     0xf4};
  compare({}, code);
  EXPECT_NE(translator.cpu().gpr[x86::Rax], 0u);
}

// Each access is to another page than the last, and both belong to the same entry of the translation cache.
TEST_F(BadInput, EveryAccessMissesTheTlb) {
  static_assert(tlb_entries << 12 == 0x40'0000);
  count = 20'000;
  rdi = 0;
  alias = true;
  compare({}, std::array<uint8_t, 33>{0x48, 0x81, 0xf7, 0x00, 0x00, 0x40, 0x00,  // xor rdi, 400000h
                                      0x48, 0x03, 0x87, 0x00, 0x00, 0x08, 0x00,  // add rax, [rdi + 80000h]
                                      0x48, 0x81, 0xf7, 0x00, 0x00, 0x40, 0x00,  // xor rdi, 400000h
                                      0x01, 0x8f, 0x00, 0x00, 0x08, 0x00,        // add [rdi + 80000h], ecx
                                      0xff, 0xc9,                                // dec ecx
                                      0x75, 0xe1,                                // jnz
                                      0xf4, 0x90});
  EXPECT_NE(translator.cpu().gpr[x86::Rax], 0u);
}

TEST_F(BadInput, MoreCodeThanTheCodeCacheHolds) {
  count = 20;
  std::vector<uint8_t> code;
  for (unsigned i = 0; i < 2000; ++i) {
    for (const unsigned byte : {0x48u, 0x05u, i & 0xff, i >> 8, 0u, 0u, 0xebu, 0u})  // add rax, i; jmp next
      code.push_back(static_cast<uint8_t>(byte));
  }
  const auto back = static_cast<uint32_t>(-static_cast<int32_t>(code.size() + 8));
  for (const uint32_t byte : {0xffu, 0xc9u, 0x0fu, 0x85u, back, back >> 8, back >> 16, back >> 24, 0xf4u})
    code.push_back(static_cast<uint8_t>(byte));
  compare({}, code);
  EXPECT_EQ(translator.cpu().gpr[x86::Rax], 20ull * 1999 * 2000 / 2);
  EXPECT_GE(translator.engine().cache().statistics().drops, 1u);
}

// A well-behaved guest counts while another one in the same process misbehaves in every way that a seed finds.
TEST_F(BadInput, AnotherGuestInTheSameProcessDoesNotNotice) {
  std::atomic<bool> done{false};
  std::thread hostile([&] {
    std::mt19937_64 random(7);
    HostileGuest guest(true, small_cache);
    while (!done) {
      std::vector<uint8_t> code(16 + random() % 300);
      for (uint8_t& byte : code) byte = static_cast<uint8_t>(random());
      std::array<uint8_t, HostileRecipe::size> bytes;
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
      guest.load(HostileRecipe::from(bytes), code);
      (void)guest.run(200, std::chrono::milliseconds(5));
    }
  });
  count = 10'000;
  for (unsigned round = 0; round < 20; ++round) {
    // add [rdi], ecx; add rax, [rdi]; dec ecx; jnz
    compare({}, std::array<uint8_t, 10>{0x01, 0x0f, 0x48, 0x03, 0x07, 0xff, 0xc9, 0x75, 0xf7, 0xf4});
  }
  done = true;
  hostile.join();
}

}  // namespace
}  // namespace caisson::jit::test
