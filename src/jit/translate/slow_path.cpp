#include "jit/translate/slow_path.h"

#include "jit/fpu.h"
#include "jit/mmu/page_walk.h"
#include "jit/profile.h"
#include "jit/translate/stubs.h"

namespace caisson::jit {

FillResult fill_from_code(Cpu* cpu, uint64_t linear, uint32_t word) {
  const uint32_t size = word & fill_word::size_mask;
  if ((linear & 0xfff) + size > page_size) return {0, 0};
  if (cpu->profile != nullptr) cpu->profile->count(Profile::fills);
  const bool write = word & fill_word::write;
  const mmu::Filled filled = mmu::fill(*cpu, linear, write ? Access::Write : Access::Read, cpu->tlb_mode);
  if (!filled.ok) {
    // The interpreter runs the instruction again and delivers the fault from there.
    cpu->fault.raised = false;
    return {0, 0};
  }
  if (!filled.ram || (write && !filled.direct)) return {0, 0};
  return {reinterpret_cast<uint64_t>(filled.host) - linear, 1};
}

void bring_fpu_back_from_code(Cpu* cpu) { fpu_bring_back(*cpu); }

}  // namespace caisson::jit
