#include "jit/translate/translator.h"

#include <array>
#include <mutex>

#include "jit/block_dump.h"
#include "jit/mmu/mirror.h"
#include "jit/mmu/mmu.h"

namespace caisson::jit {

using namespace x86;

ModeWord mode_word(const Cpu& cpu) {
  ModeWord mode = static_cast<unsigned>(cpu.tlb_mode);
  if (cpu.code_bits == 32) mode |= mode_bits::code_32;
  if (cpu.mirrored && cpu.user_64() && Mirror::stack_is_mirrored(cpu))
    mode |= mode_bits::mirror | (cpu.mirror_gs_half == 1 ? mode_bits::mirror_upper : 0);
  if (cpu.cpl == 0) mode |= mode_bits::cpl_0;
  if (cpu.cr4 & cr4::tsd) mode |= mode_bits::tsd;
  if (cpu.cr4 & cr4::smap) mode |= mode_bits::smap;
  if ((cpu.cr0 & (cr0::ts | cr0::em)) != 0) return mode;
  mode |= mode_bits::fpu_ok;
  if (cpu.cr4 & cr4::osfxsr) mode |= mode_bits::sse_ok;
  if ((cpu.cr4 & cr4::osxsave) && (cpu.xcr0 & 6) == 6) {
    mode |= mode_bits::avx_ok;
    if ((cpu.xcr0 & 0xe6) == 0xe6) mode |= mode_bits::avx512_ok;
  }
  return mode;
}

Translator::Translator(JitEngine& engine, Cpu& cpu)
    : engine_(engine),
      cpu_(cpu),
      builder_(engine.stubs(), engine.options().off),
      chain_((engine.options().off & off::chain) == 0) {}

void Translator::enter_thread() {
  set_current_cpu(cpu_);
  if (cpu_.mirror != nullptr) cpu_.mirror->enter_thread();
  cpu_.tsc_bias = cpu_.clock->tsc() - __builtin_ia32_rdtsc();
}

bool Translator::runs_seldom() {
  if (engine_.options().off & off::seldom) return false;
  if (seen_.empty() || seen_count_ > seen_bits / 2) {
    seen_.assign(seen_bits / 64, 0);
    seen_count_ = 0;
  }
  // The first and the second time set a bit each.
  const uint64_t hash = cpu_.rip * 0x9e37'79b9'7f4a'7c15;
  for (const unsigned shift : {40, 32}) {
    const size_t bit = hash >> shift & (seen_bits - 1);
    const uint64_t mask = uint64_t{1} << bit % 64;
    if (seen_[bit / 64] & mask) continue;
    seen_[bit / 64] |= mask;
    ++seen_count_;
    return true;
  }
  return false;
}

namespace {

// Pages that blocks are expected of, until the end of a scope.
class Expected {
 public:
  explicit Expected(CodeCache& cache) : cache_(cache) {}
  Expected(const Expected&) = delete;
  Expected& operator=(const Expected&) = delete;
  ~Expected() {
    const std::lock_guard hold(cache_.lock());
    for (unsigned i = 0; i < count_; ++i) cache_.expect_no_more(pages_[i]);
  }
  void add(Gpa page) {
    const std::lock_guard hold(cache_.lock());
    cache_.expect(page);
    pages_[count_++] = page;
  }

 private:
  CodeCache& cache_;
  std::array<Gpa, 2> pages_{};
  unsigned count_ = 0;
};

}  // namespace

bool Translator::translate_current() {
  Cpu& cpu = cpu_;
  CodePage page;
  if (!mmu::code_page(cpu, cpu.rip, page) || page.host == nullptr) {
    cpu.fault = {};
    return true;  // the dispatcher sees it again and hands it to the interpreter
  }
  ModeWord mode = mode_word(cpu);
  if (careful_ && slot_rip_ == cpu.rip && slot_mode_ == mode) mode |= mode_bits::careful;
  const BlockKey key = block_key(cpu, page, mode);
  CodeBytes code{.page = std::span<const uint8_t, page_size>(page.host, page_size)};
  CodePage next;
  const auto find_next = [&] {
    const uint64_t linear = (cpu.rip | (page_size - 1)) + 1;
    if (mmu::code_page(cpu, cpu.code_bits == 64 ? linear : linear & 0xffff'ffff, next) && next.host != nullptr &&
        next.gpa != page.gpa) {
      code.next = next.host;
      code.next_page = next.gpa;
    }
    cpu.fault = {};
    code.next_known = true;
  };
  CodeCache& cache = engine_.cache();
  Expected expected(cache);
  bool next_expected = false;
  expected.add(page.gpa);
  const auto marked = [&](Gpa gpa) { return (cpu.memory->page_flags(gpa).load() & GuestMemory::code_flag) != 0; };
  for (;;) {
    engine_.page_becomes_code(cpu, page.gpa);
    if (code.next != nullptr) {
      if (!next_expected) expected.add(next.gpa);
      next_expected = true;
      engine_.page_becomes_code(cpu, next.gpa);
    }
    std::unique_lock hold(cache.lock());
    if (cache.find(key) != nullptr) return true;
    if (!cache.has_room(BlockBuilder::room_needed)) return false;
    // All blocks may have been dropped since the marks were made, and these with them.
    if (!marked(page.gpa) || (code.next != nullptr && !marked(next.gpa))) continue;
    if (!builder_.build(cache, key, code, cpu)) {
      hold.unlock();
      find_next();
      continue;
    }
    Block block = builder_.block();
    block.global = page.global;
    const Block* kept = cache.commit(block, builder_.points());
    if (BlockDump* dump = engine_.dump()) dump->block(*kept, builder_.points(), cpu.rip, code.page, code.next);
    return true;
  }
}

}  // namespace caisson::jit
