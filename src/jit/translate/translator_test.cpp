// Random blocks of guest code, run by the translator and by the interpreter from the same state: registers, flags and
// memory must agree afterwards.
#include <Zydis/Zydis.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>

#include "jit/decode/instruction.h"
#include "jit/translate/classify.h"
#include "jit/translate/test_bench.h"
#include "x86/registers.h"

namespace caisson::jit {
namespace {

using namespace test;

constexpr ModeWord any_mode = 1 | mode_bits::fpu_ok | mode_bits::sse_ok | mode_bits::avx_ok | mode_bits::avx512_ok;

// Something the translator takes, with a memory operand that stays near the data.
// `bases`: registers that memory operands may start from.
std::vector<uint8_t> random_instruction(std::mt19937_64& random, bool simd, uint32_t bases, uint32_t& undefined) {
  static constexpr std::array<uint8_t, 12> prefixes{0x66, 0xf2, 0xf3, 0x48, 0x41, 0x44,
                                                    0x45, 0x49, 0x4c, 0x4d, 0x64, 0x65};
  for (;;) {
    std::array<uint8_t, 15> bytes;
    for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
    unsigned at = 0;
    const auto count = static_cast<unsigned>(random() % 3);
    for (unsigned i = 0; i < count; ++i) bytes[at++] = prefixes[random() % prefixes.size()];
    if (simd) {
      const auto form = static_cast<unsigned>(random() % 3);
      if (form == 0) bytes[at] = 0xc5;
      if (form == 1) bytes[at] = 0x0f;
    } else if (random() % 3 == 0) {
      bytes[at] = 0x0f;
    }
    Instruction in;
    if (decode(bytes, 64, in) != DecodeStatus::Ok || in.simd != simd) continue;
    // Flags that an instruction leaves undefined may differ: nothing may read them.
    if (in.flags_read & undefined) continue;
    const Kind kind = classify(in, any_mode);
    if (kind == Kind::Interpret || kind == Kind::Nothing || kind == Kind::ReadTime || kind == Kind::String ||
        ends_block(kind))
      continue;
    if (const Operand* memory = in.memory()) {
      if (memory->displacement > 0x1000 || memory->displacement < -0x1000) continue;
      if (memory->base == Operand::no_register && memory->index == Operand::no_register) continue;
      if (memory->base == Operand::rip_register) continue;
      if (memory->base < 16 && (bases >> memory->base & 1) == 0) continue;
    }
    const FlagUse use = flag_use(in);
    undefined = (undefined & ~(use.overwrites & ~in.flags_undefined)) | in.flags_undefined;
    return {bytes.begin(), bytes.begin() + in.length};
  }
}

uint64_t environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

void compare_random_blocks(bool simd, uint64_t rounds, size_t code_cache_size = size_t{64} << 20) {
  JitOptions options;
  options.code_cache_size = code_cache_size;
  Bench translator(options), interpreter(Bench::interpreter());
  const uint64_t first = environment("CAISSON_TEST_SEED", 1);
  for (uint64_t seed = first; seed < first + rounds; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<uint8_t> bytes;
    const auto count = static_cast<unsigned>(1 + random() % 12);
    uint32_t undefined = 0;
    // Often few of them, so that they share windows.
    uint32_t bases = 0xffff;
    if (random() % 2) bases = 1u << random() % 16 | 1u << random() % 16 | 1u << 4;
    for (unsigned i = 0; i < count; ++i) {
      const auto one = random_instruction(random, simd && random() % 2 == 0, bases, undefined);
      bytes.insert(bytes.end(), one.begin(), one.end());
    }
    const uint64_t end = bytes.size();
    bytes.push_back(0x0f);
    bytes.push_back(0x0b);
    std::array<uint64_t, 16> gpr;
    for (auto& reg : gpr) {
      reg = data + 0x1'0000 + random() % 0x2'0000;
      if (random() % 4 == 0) reg = (reg | 0xfff) - random() % 64;  // near a page's end
    }
    for (unsigned i = 0; i < 3; ++i) gpr[random() % 16] = random() >> random() % 64;
    gpr[4] = data + 0x1'0000 + (random() % 0x1'0000 & ~uint64_t{7});
    const uint64_t rflags = 2 | (random() & 0x8d5);
    const uint64_t at = code + random() % 0x1000;
    const CpuState a = translator.run(bytes, gpr, rflags, seed, at), b = interpreter.run(bytes, gpr, rflags, seed, at);
    std::string text;
    for (const uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
    for (unsigned i = 0; i < 16; ++i)
      ASSERT_EQ(a.gpr[i], b.gpr[i]) << "register " << i << " seed " << seed << " code " << text << " rip "
                                    << a.rip - at;
    ASSERT_EQ(a.rip - at, b.rip - at) << "seed " << seed << " code " << text;
    // Flags that are dead where a fault happens may differ there; at the end all live.
    if (a.rip == at + end) {
      ASSERT_EQ(a.rflags & ~undefined, b.rflags & ~undefined)
          << std::hex << "seed " << std::dec << seed << " code " << text;
    }
    ASSERT_EQ(std::memcmp(translator.memory() + data, interpreter.memory() + data, memory_size - data), 0)
        << "seed " << seed << " code " << text;
    for (size_t i = 0; i < a.xsave.data.size(); ++i) {
      if (i == 28) i = 32;    // MXCSR_MASK: not state
      if (i == 512) i = 520;  // XSTATE_BV: whether a component counts as in use is the processor's choice
      ASSERT_EQ(a.xsave.data[i], b.xsave.data[i]) << "XSAVE byte " << i << " seed " << seed << " code " << text;
    }
  }
}

TEST(Translator, IntegerBlocksAgreeWithTheInterpreter) {
  compare_random_blocks(false, environment("CAISSON_TEST_ROUNDS", 1500));
}

TEST(Translator, SimdBlocksAgreeWithTheInterpreter) {
  compare_random_blocks(true, environment("CAISSON_TEST_ROUNDS", 1500));
}

// SYSCALL leaves RFLAGS in R11 (vol. 2): they are read, though it changes them as well.
TEST(Translator, FlagsLiveUntilSyscall) {
  Instruction in;
  ASSERT_EQ(decode(std::array<uint8_t, 2>{0x0f, 0x05}, 64, in), DecodeStatus::Ok);
  EXPECT_EQ(flag_use(in).reads, all_status_flags);
}

// Room for a handful of blocks: everything is dropped again and again.
TEST(Translator, FullCodeCache) {
  compare_random_blocks(false, environment("CAISSON_TEST_ROUNDS", 200), size_t{64} << 10);
}

// MOVS and STOS in every size, up and down, alone and repeated: overlapping, across pages, into memory that is not
// mapped.
TEST(Translator, StringInstructionsAgreeWithTheInterpreter) {
  Bench translator({}), interpreter(Bench::interpreter());
  const uint64_t first = environment("CAISSON_TEST_SEED", 1);
  for (uint64_t seed = first; seed < first + environment("CAISSON_TEST_ROUNDS", 1000); ++seed) {
    std::mt19937_64 random(seed);
    std::vector<uint8_t> bytes;
    bytes.push_back(random() % 8 == 0 ? 0xfd : 0xfc);  // STD, CLD
    if (random() % 4 != 0) bytes.push_back(0xf3);
    const unsigned size = 1u << random() % 4;
    if (size == 2) bytes.push_back(0x66);
    if (size == 8) bytes.push_back(0x48);
    bytes.push_back(static_cast<uint8_t>((random() % 2 ? 0xa4 : 0xaa) | (size > 1 ? 1 : 0)));
    bytes.push_back(0x0f);
    bytes.push_back(0x0b);
    std::array<uint64_t, 16> gpr;
    for (auto& reg : gpr) reg = random();
    gpr[x86::Rsp] = data + 0x1'0000;
    gpr[x86::Rcx] = random() % (random() % 4 == 0 ? 0x3000 : 40);
    gpr[x86::Rsi] = data + 0x1'8000 + random() % 0x4000;
    gpr[x86::Rdi] = random() % 2 ? gpr[x86::Rsi] + random() % 40 - 20 : data + 0x2'0000 + random() % 0x4000;
    // Some end where memory does.
    if (random() % 8 == 0) gpr[random() % 2 ? x86::Rsi : x86::Rdi] = memory_size - random() % 0x1800;
    if (random() % 16 == 0) gpr[random() % 2 ? x86::Rsi : x86::Rdi] = memory_size + random() % 0x1000;
    const CpuState a = translator.run(bytes, gpr, 2, seed, code), b = interpreter.run(bytes, gpr, 2, seed, code);
    for (unsigned i = 0; i < 16; ++i) ASSERT_EQ(a.gpr[i], b.gpr[i]) << "register " << i << " seed " << seed;
    ASSERT_EQ(a.rip, b.rip) << "seed " << seed;
    ASSERT_EQ(std::memcmp(translator.memory() + data, interpreter.memory() + data, memory_size - data), 0)
        << "seed " << seed;
  }
}

}  // namespace
}  // namespace caisson::jit
