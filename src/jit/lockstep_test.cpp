// Lock-step: agrees where the translator is right, and finds it where it is not. Translations are made wrong here by
// changing their host code in the cache.
#include "jit/lockstep.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>

#include "jit/translate/test_bench.h"

namespace caisson::jit {
namespace {

using namespace test;

JitOptions in_lockstep() {
  JitOptions options;
  options.lockstep = true;
  return options;
}

std::array<uint64_t, 16> registers() {
  std::array<uint64_t, 16> gpr;
  for (unsigned i = 0; i < 16; ++i) gpr[i] = data + 0x1'0000 + i * 0x100;
  return gpr;
}

// Replaces bytes in the host code of all blocks; how often they were found.
unsigned corrupt(JitEngine& engine, const std::vector<uint8_t>& from, const std::vector<uint8_t>& to) {
  CodeCache& cache = engine.cache();
  const std::lock_guard hold(cache.lock());
  uint8_t* const end = cache.write_position();
  const uint8_t* const run_end = cache.run_position();
  unsigned found = 0;
  for (uint8_t* at = end - 4096; at + from.size() <= end; ++at) {
    const Block* block = cache.block_at(run_end - (end - at));
    if (block == nullptr || !std::equal(from.begin(), from.end(), at)) continue;
    std::copy(to.begin(), to.end(), at);
    ++found;
  }
  return found;
}

struct Wrong {
  const char* what;
  std::vector<uint8_t> code;      // the guest's
  std::vector<uint8_t> from, to;  // the host's
};
// Each of these ends with UD2.
const std::vector<Wrong>& wrongs() {
  static const std::vector<Wrong> all{
      {"integer: ADD becomes SUB", {0x48, 0x01, 0xd8}, {0x48, 0x01, 0xd8}, {0x48, 0x29, 0xd8}},
      {"flags: CMP of another register, then SETC", {0x39, 0xd8, 0x0f, 0x92, 0xc1}, {0x39, 0xd8}, {0x39, 0xc3}},
      {"vector: PADDD becomes PSUBD",
       {0x0f, 0x57, 0xc9, 0x66, 0x0f, 0x6e, 0xc3, 0x66, 0x0f, 0xfe, 0xc8},
       {0x66, 0x0f, 0xfe, 0xc8},
       {0x66, 0x0f, 0xfa, 0xc8}},
      {"x87: FADD becomes FSUB", {0xdb, 0xe3, 0xd9, 0xe8, 0xd9, 0xe8, 0xde, 0xc1}, {0xde, 0xc1}, {0xde, 0xe9}},
  };
  return all;
}

TEST(Lockstep, AgreesAndThenFindsWhatIsWrong) {
  for (const Wrong& wrong : wrongs()) {
    Bench bench(in_lockstep());
    std::vector<uint8_t> code_bytes = wrong.code;
    code_bytes.insert(code_bytes.end(), {0x0f, 0x0b});
    (void)bench.run(code_bytes, registers(), 2, 1, code);
    ASSERT_EQ(bench.reason(), ExitReason::TripleFault) << wrong.what << ": " << bench.error();
    ASSERT_EQ(corrupt(bench.engine(), wrong.from, wrong.to), 1u) << wrong.what;
    (void)bench.run(code_bytes, registers(), 2, 1, code);
    EXPECT_EQ(bench.reason(), ExitReason::InternalError) << wrong.what;
    EXPECT_NE(bench.error().find("differ in the block at 100000"), std::string::npos) << bench.error();
  }
}

// A store to where the interpreter stored as well, but of more bytes: those around are looked at, too.
TEST(Lockstep, FindsAStoreThatIsTooWide) {
  Bench bench(in_lockstep());
  // mov [rbx], eax
  const std::vector<uint8_t> bytes{0x89, 0x03, 0x0f, 0x0b};
  (void)bench.run(bytes, registers(), 2, 1, code);
  ASSERT_EQ(bench.reason(), ExitReason::TripleFault) << bench.error();
  CodeCache& cache = bench.engine().cache();
  const Block* block = cache.block_at(cache.run_position() - 16);
  ASSERT_NE(block, nullptr);
  // The store is the only "89 /r" with a base and an index; give it REX.W by way of the NOP before, or fail loudly.
  uint8_t* const host = cache.write_position() - (cache.run_position() - block->start);
  unsigned found = 0;
  for (uint32_t i = 1; i + 3 < block->cold_offset; ++i) {
    if ((host[i] & 0xf8) == 0x40 && host[i + 1] == 0x89 && (host[i + 2] & 0xc7) == 0x04) host[i] |= 8, ++found;
  }
  ASSERT_EQ(found, 1u);
  auto gpr = registers();
  gpr[0] = 0x1234'5678'9abc'def0;
  (void)bench.run(bytes, gpr, 2, 1, code);
  EXPECT_EQ(bench.reason(), ExitReason::InternalError);
}

// A loop with calls, pushes, conditional jumps and string instructions, without a difference.
TEST(Lockstep, AgreesInALoop) {
  Bench bench(in_lockstep());
  const std::vector<uint8_t> bytes{
      0xb9, 0x64, 0x00, 0x00, 0x00,        // mov ecx, 100
      0xe8, 0x07, 0x00, 0x00, 0x00,        // 1: call 2f
      0xff, 0xc9,                          // dec ecx
      0x75, 0xf7,                          // jnz 1b
      0x9c, 0x0f, 0x0b,                    // pushf; ud2
      0x50, 0x51, 0x57,                    // 2: push rax, rcx, rdi
      0x6b, 0xc0, 0x11,                    // imul eax, eax, 17
      0xb9, 0x09, 0x00, 0x00, 0x00, 0xfc,  // mov ecx, 9; cld
      0xf3, 0xaa,                          // rep stosb
      0x5f, 0x59, 0x58,                    // pop rdi, rcx, rax
      0xf0, 0x48, 0x0f, 0xc1, 0x03,        // lock xadd [rbx], rax
      0xc3,                                // ret
  };
  const CpuState end = bench.run(bytes, registers(), 2, 1, code);
  ASSERT_EQ(bench.reason(), ExitReason::TripleFault) << bench.error();
  EXPECT_EQ(end.gpr[x86::Rcx], 0u);
}

// Two XSAVE images of the same state: a component may be in its initial state in one and written out in the other.
TEST(Lockstep, InitialStateIsTheSameWrittenOutOrNot) {
  std::array<uint8_t, xsave_area_size> a{}, b{};
  for (auto* image : {&a, &b}) (*image)[0] = 0x7f, (*image)[1] = 3, (*image)[24] = 0x80, (*image)[25] = 0x1f;
  a[512] = 3;
  EXPECT_TRUE(same_fpu_state(a, b));
  b[160] = 1;  // XMM0, but not in use
  EXPECT_TRUE(same_fpu_state(a, b));
  b[512] = 2;
  EXPECT_FALSE(same_fpu_state(a, b));
}

// With each class off the translator does the same, by other ways.
TEST(JitOff, EveryClassGivesTheSame) {
  const std::vector<uint8_t> bytes{
      0xb9, 0x20, 0x00, 0x00, 0x00,                          // mov ecx, 32
      0x48, 0x01, 0xc8, 0x48, 0x11, 0xd2,                    // 1: add rax, rcx; adc rdx, rdx
      0x50, 0x8b, 0x7b, 0x08, 0x8b, 0x73, 0x10, 0x5f,        // push rax; mov edi, [rbx+8]; mov esi, [rbx+16]; pop rdi
      0xf0, 0x48, 0x0f, 0xc1, 0x03,                          // lock xadd [rbx], rax
      0x66, 0x48, 0x0f, 0x6e, 0xc0, 0x66, 0x0f, 0xfe, 0xc8,  // movq xmm0, rax; paddd xmm1, xmm0
      0xd9, 0xe8, 0xdd, 0x5b, 0x20,                          // fld1; fstp qword [rbx+32]
      0x49, 0x89, 0xf8, 0x48, 0x8d, 0x7b, 0x40, 0xaa,        // mov r8, rdi; lea rdi, [rbx+64]; stosb
      0x4c, 0x89, 0xc7, 0xfa,                                // mov rdi, r8; cli
      0xff, 0xc9, 0x75, 0xcf,                                // dec ecx; jnz 1b
      0x0f, 0x0b,
  };
  Bench plain{JitOptions{}};
  const CpuState expected = plain.run(bytes, registers(), 2, 7, code);
  EXPECT_EQ(expected.gpr[x86::Rcx], 0u);
  for (const uint32_t bits : {off::integer, off::x87, off::sse, off::avx, off::string, off::atomic, off::branch,
                              off::system, off::windows, off::flags, off::chain, off::conditional, off::instructions}) {
    JitOptions options;
    options.off = bits;
    Bench bench(options);
    const CpuState state = bench.run(bytes, registers(), 2, 7, code);
    EXPECT_EQ(state.gpr, expected.gpr) << "off " << bits;
    EXPECT_EQ(state.rip, expected.rip) << "off " << bits;
    EXPECT_EQ(std::memcmp(bench.memory() + data, plain.memory() + data, memory_size - data), 0) << "off " << bits;
    EXPECT_TRUE(
        std::equal(state.xsave.data.begin() + 160, state.xsave.data.begin() + 192, expected.xsave.data.begin() + 160))
        << "off " << bits;
  }
}

// What is switched off is really not translated.
TEST(JitOff, LeavesTheClassToTheInterpreter) {
  for (const bool on : {true, false}) {
    JitOptions options;
    options.off = on ? 0 : off::integer;
    Bench bench(options);
    (void)bench.run({0x48, 0x01, 0xd8, 0x0f, 0x0b}, registers(), 2, 1, code);
    // The block is not longer than the exits.
    EXPECT_EQ(corrupt(bench.engine(), {0x48, 0x01, 0xd8}, {0x48, 0x01, 0xd8}), on ? 1u : 0u);
  }
}

TEST(BlockDump, ShowsGuestAndHostCode) {
  const int file = memfd_create("dump", MFD_CLOEXEC);
  ASSERT_GE(file, 0);
  JitOptions options;
  options.dump_fd = file;
  options.dump_at = {code + 3};
  Bench bench(options);
  (void)bench.run({0x48, 0x01, 0xd8, 0x0f, 0xaf, 0xd1, 0x0f, 0x0b}, registers(), 2, 1, code);
  (void)bench.run({0x48, 0x01, 0xd8, 0x0f, 0x0b}, registers(), 2, 1, code + 0x800);  // holds no such address
  std::string text(65536, 0);
  const ssize_t size = pread(file, text.data(), text.size(), 0);
  close(file);
  ASSERT_GT(size, 0);
  text.resize(static_cast<size_t>(size));
  EXPECT_TRUE(text.starts_with("block 100000 (guest-physical 100000), 64-bit")) << text;
  EXPECT_NE(text.find("\n  100000  add rax, rbx\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\n  100003  imul edx, ecx\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  add rax, rbx\n  100003"), std::string::npos)
      << "the host's, last of its instruction: " << text;
  EXPECT_EQ(text.find("block 100800"), std::string::npos) << text;
}

TEST(Profile, CountsAndNamesTheTime) {
  JitOptions options;
  options.profile = true;
  Bench bench(options);
  // mov ecx, 200000000; 1: dec ecx; jnz 1b; cpuid; ud2
  (void)bench.run({0xb9, 0x00, 0xc2, 0xeb, 0x0b, 0xff, 0xc9, 0x75, 0xfc, 0x0f, 0xa2, 0x0f, 0x0b}, registers(), 2, 1,
                  code);
  const EngineProfile profile = bench.engine().profile();
  const auto value = [&](std::string_view group, std::string_view name) {
    uint64_t sum = 0;
    for (const auto& row : profile.rows) {
      if (row.group == group && row.name.starts_with(name)) sum += row.value;
    }
    return sum;
  };
  EXPECT_GE(value("events", "translations"), 2u);
  EXPECT_EQ(value("interpreted", "cpuid"), 1u);
  // The loop takes tens of milliseconds at least: it was seen.
  EXPECT_GT(value("time", "translated code, supervisor"), 0u);
  EXPECT_GT(value("blocks", "100005 "), 0u);
}

}  // namespace
}  // namespace caisson::jit
