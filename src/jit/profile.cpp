#include "jit/profile.h"

#include <Zydis/Zydis.h>

#include <mutex>
#include <string_view>

#include <fmt/core.h>

#include "jit/cache/code_cache.h"
#include "jit/decode/instruction.h"
#include "jit/mmu/mmu.h"
#include "jit/translate/classify.h"

namespace caisson::jit {

void Profile::interpreted(Cpu& cpu, bool slow) {
  std::array<uint8_t, 15> bytes;
  const Fault kept = cpu.fault;
  const unsigned size = mmu::fetch(cpu, cpu.rip + (cpu.code_bits == 64 ? 0 : cpu.segments[x86::Cs].base), bytes.data());
  cpu.fault = kept;
  Instruction in;
  std::string name = "?";
  if (size != 0 && decode(std::span(bytes).first(size), cpu.code_bits, in) == DecodeStatus::Ok) {
    name = ZydisMnemonicGetString(static_cast<ZydisMnemonic>(in.mnemonic));
  }
  ++by_mnemonic_[slow ? name + " (memory)" : name];
}

void Profile::sample(const Cpu& cpu, const CodeCache& cache, const uint8_t* pc, uint64_t ticks) noexcept {
  Doing doing = doing_.load(std::memory_order_relaxed);
  if (cache.contains(pc)) {
    doing = cache.is_stub(pc) ? Doing::Stubs : cpu.cpl == 3 ? Doing::User : Doing::Supervisor;
    if (doing != Doing::Stubs && taken_ - settled_ < samples_.size()) {
      samples_[taken_ % samples_.size()] = {pc, cpu.code_base, cache.generation(), ticks};
      ++taken_;
    }
  }
  ticks_[static_cast<size_t>(doing)] += ticks;
}

void Profile::settle(CodeCache& cache) {
  const std::lock_guard hold(cache.lock());
  for (; settled_ < taken_; ++settled_) {
    const Sample& sample = samples_[settled_ % samples_.size()];
    if (sample.generation != cache.generation()) continue;
    const Block* block = cache.block_at(sample.pc);
    if (block == nullptr) continue;
    const bool user = (block->key.mode & mode_bits::tlb_mask) == static_cast<unsigned>(TlbMode::User);
    blocks_[{.linear = block->key.rip + (user ? sample.code_base : 0), .gpa = block->key.gpa}] += sample.ticks;
  }
}

void Profile::add_to(Totals& totals, uint64_t tick) const {
  const auto add = [&](const char* group, std::string name, uint64_t value) {
    if (value != 0) totals[{group, std::move(name)}] += value;
  };
  static constexpr std::array<std::string_view, static_cast<size_t>(Doing::count)> doings{
      "run loop",
      "between blocks",
      "translation",
      "misses of translation caches",
      "flushes",
      "interpreter",
      "devices",
      "interrupts",
      "idle",
      "user code executed directly",
      "translated code, user",
      "translated code, supervisor",
      "translated code, entry and exit"};
  static constexpr std::array<std::string_view, event_count> names{"entries into translated code",
                                                                   "look-ups in the shared table",
                                                                   "jumps chained",
                                                                   "jumps not chained",
                                                                   "entries into dead blocks",
                                                                   "exits: poll or look-up",
                                                                   "translations",
                                                                   "exits: instruction for the interpreter",
                                                                   "exits: memory access for the interpreter",
                                                                   "exits: host fault",
                                                                   "exits: system instruction",
                                                                   "translation-cache misses",
                                                                   "full flushes",
                                                                   "flushes of an address space",
                                                                   "flushes of a page",
                                                                   "address spaces mirrored",
                                                                   "host faults in mirrors",
                                                                   "pages mirrored",
                                                                   "address spaces executed directly",
                                                                   "pages executed directly",
                                                                   "stops of direct execution: woken",
                                                                   "stops of direct execution: system call",
                                                                   "stops of direct execution: fault",
                                                                   "stops of direct execution: trap",
                                                                   "stops of direct execution: exception",
                                                                   "stops of direct execution: vsyscall page",
                                                                   "processes of direct execution killed"};
  for (size_t i = 0; i < doings.size(); ++i) add("time", std::string{doings[i]}, ticks_[i] * tick);
  for (size_t i = 0; i < names.size(); ++i) add("events", std::string{names[i]}, counts_[i]);
  for (size_t i = 0; i < vectors_.size(); ++i) {
    add("vectors", fmt::format("{}", i), vectors_[i]);
  }
  for (const auto& [name, count] : by_mnemonic_) add("interpreted", name, count);
  for (const auto& [block, ticks] : blocks_) {
    add("blocks", fmt::format("{:x} (guest-physical {:x})", block.linear, block.gpa), ticks * tick);
  }
}

}  // namespace caisson::jit
