#include "jit/profile.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include <fmt/core.h>

#include "jit/decode/instruction.h"
#include "jit/mmu/mmu.h"

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

std::string Profile::report(unsigned cpu) const {
  static constexpr std::array<std::string_view, event_count> names{
      "entries",         "jump misses",  "chained",        "not chained",     "stale",
      "polls, look-ups", "translations", "to interpreter", "slow memory",     "host faults",
      "system",          "fills",        "full flushes",   "partial flushes", "page flushes"};
  std::string text = fmt::format("CPU {} profile:", cpu);
  for (unsigned i = 0; i < event_count; ++i) text += fmt::format("\n  {:16} {:>12}", names[i], counts_[i]);
  std::vector<std::pair<uint64_t, std::string>> sorted;
  for (const auto& [name, count] : by_mnemonic_) sorted.emplace_back(count, name);
  std::sort(sorted.rbegin(), sorted.rend());
  text += "\n  vectors delivered:";
  for (unsigned i = 0; i < 256; ++i) {
    if (vectors_[i] != 0) text += fmt::format(" {}: {}", i, vectors_[i]);
  }
  text += "\n  interpreted instructions:";
  for (size_t i = 0; i < std::min<size_t>(sorted.size(), 40); ++i)
    text += fmt::format("\n    {:20} {:>12}", sorted[i].second, sorted[i].first);
  return text;
}

}  // namespace caisson::jit
