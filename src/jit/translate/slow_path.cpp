#include "jit/translate/slow_path.h"

#include "jit/fpu_aside.h"
#include "jit/mmu/page_walk.h"
#include "jit/profile.h"
#include "jit/translate/stubs.h"

namespace caisson::jit {

namespace {

constexpr uint32_t largest_crossing = 64;

// Host address of `linear`, or null where a plain access is not possible.
uint8_t* plain(Cpu& cpu, uint64_t linear, bool write) {
  const Tlb& cache = cpu.tlb[static_cast<unsigned>(cpu.tlb_mode)];
  const unsigned slot = linear >> 12 & (tlb_entries - 1);
  const uint64_t page = linear & ~uint64_t{0xfff};
  if ((write ? cache.write_tag[slot] : cache.read_tag[slot]) == page)
    return reinterpret_cast<uint8_t*>(linear + cache.addend[slot]);
  const mmu::Filled filled = mmu::fill(cpu, linear, write ? Access::Write : Access::Read, cpu.tlb_mode);
  cpu.fault.raised = false;
  return filled.ok && filled.ram && (!write || filled.direct) ? filled.host : nullptr;
}

// A read that crosses a page: a copy of its bytes, at the same alignment. (Such reads are not atomic on hardware
// either: vol. 3, 9.1.1.)
FillResult read_across_pages(Cpu& cpu, uint64_t linear, uint32_t size) {
  const auto before = static_cast<uint32_t>(page_size - (linear & 0xfff));
  const uint8_t* first = plain(cpu, linear, false);
  if (first == nullptr || size > largest_crossing) return {0, 0};
  const uint64_t next = linear + before;
  const uint8_t* second = plain(cpu, cpu.code_bits == 64 ? next : next & 0xffff'ffff, false);
  if (second == nullptr) return {0, 0};
  uint8_t* copy = cpu.crossing.data() + (linear & 63);
  for (uint32_t i = 0; i < before; ++i) copy[i] = first[i];
  for (uint32_t i = before; i < size; ++i) copy[i] = second[i - before];
  return {reinterpret_cast<uint64_t>(copy) - linear, 1};
}

}  // namespace

FillResult fill_from_code(Cpu* cpu, uint64_t linear, uint32_t word) {
  const FpuAside aside(*cpu);
  const ProfileScope profiled(*cpu, Doing::Fill);
  const uint32_t size = word & fill_word::size_mask;
  if ((linear & 0xfff) + size > page_size) {
    return word & fill_word::write ? FillResult{0, 0} : read_across_pages(*cpu, linear, size);
  }
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

FillResult fill_window_from_code(Cpu* cpu, uint64_t linear, uint32_t word) {
  const FpuAside aside(*cpu);
  const ProfileScope profiled(*cpu, Doing::Fill);
  if ((linear & 0xfff) + (word & 0xffff) > page_size) return {0, 0};
  const Tlb& cache = cpu->tlb[static_cast<unsigned>(cpu->tlb_mode)];
  const unsigned slot = linear >> 12 & (tlb_entries - 1);
  const uint64_t page = linear & ~uint64_t{0xfff};
  const bool stack = word & fill_word::window_stack;
  uint64_t addend = cache.addend[slot];
  // (The stack's page is only the last one used: others may well be known.)
  if (!stack || cache.write_tag[slot] != page) {
    if (cpu->profile != nullptr) cpu->profile->count(Profile::fills);
    // As a read even where the window is written to: a page's dirty bit is set by a store that happens, no sooner.
    const mmu::Filled filled = mmu::fill(*cpu, linear, Access::Read, cpu->tlb_mode);
    cpu->fault.raised = false;
    if (!filled.ok || !filled.ram || ((stack || (word & fill_word::window_write)) && !filled.direct)) return {0, 0};
    addend = reinterpret_cast<uint64_t>(filled.host) - linear;
  }
  if (stack) {
    cpu->stack_pages[static_cast<unsigned>(cpu->tlb_mode)] = {.page = page, .addend = addend};
    cpu->stack_pages_global[static_cast<unsigned>(cpu->tlb_mode)] = (cache.global[slot] & 1) != 0;
  }
  return {addend, 1};
}

namespace {

void repeat_move(uint8_t* to, const uint8_t* from, uint64_t count, uint32_t size) {
  switch (size) {
    case 1: asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory"); break;
    case 2: asm volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(count)::"memory"); break;
    case 4: asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count)::"memory"); break;
    default: asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count)::"memory"); break;
  }
}

void repeat_store(uint8_t* to, uint64_t value, uint64_t count, uint32_t size) {
  switch (size) {
    case 1: asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory"); break;
    case 2: asm volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory"); break;
    case 4: asm volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory"); break;
    default: asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory"); break;
  }
}

}  // namespace

uint64_t string_from_code(Cpu* cpu, uint32_t word) {
  using namespace x86;
  const FpuAside aside(*cpu);
  const ProfileScope profiled(*cpu, Doing::Fill);
  if (cpu->rflags & rflags::df) return 0;
  const uint32_t size = word & string_word::size_mask;
  const bool move = word & string_word::move;
  const uint64_t mask = word & string_word::narrow ? 0xffff'ffff : ~uint64_t{0};
  uint64_t left = cpu->gpr[Rcx] & mask;
  while (left != 0) {
    const uint64_t to = cpu->gpr[Rdi] & mask, from = cpu->gpr[Rsi] & mask;
    // Whole elements up to the end of the nearer page; one that crosses is the interpreter's.
    uint64_t count = (page_size - (to & 0xfff)) / size;
    if (move) {
      const uint64_t readable = (page_size - (from & 0xfff)) / size;
      if (readable < count) count = readable;
    }
    if (count > left) count = left;
    if (count == 0) return 0;
    const uint8_t* source = nullptr;
    if (move && (source = plain(*cpu, from, false)) == nullptr) return 0;
    uint8_t* target = plain(*cpu, to, true);
    if (target == nullptr) return 0;
    // Making the second entry may have replaced the first; the address it gave is still right.
    if (move) {
      repeat_move(target, source, count, size);
      cpu->gpr[Rsi] = (from + count * size) & mask;
    } else {
      repeat_store(target, cpu->gpr[Rax], count, size);
    }
    cpu->gpr[Rdi] = (to + count * size) & mask;
    left -= count;
    cpu->gpr[Rcx] = left;
    if (left != 0 && cpu->exit_request.load(std::memory_order_relaxed) != 0) return 0;
  }
  return 1;
}

void bring_fpu_back_from_code(Cpu* cpu) { fpu_bring_back(*cpu); }

}  // namespace caisson::jit
