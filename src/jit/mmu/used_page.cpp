#include "jit/mmu/used_page.h"

#include "jit/mmu/page_walk.h"

namespace caisson::jit::mmu {

UsedPage used_page(const Cpu& cpu, uint64_t linear) {
  const uint64_t reserved = reserved_physical(cpu) | (cpu.efer & x86::efer::nxe ? 0 : pte::nx);
  uint64_t table = cpu.cr3 & address_mask, rights = pte::write | pte::user, no_execute = 0;
  for (unsigned level = 4; level > 0; --level) {
    const unsigned shift = 12 + 9 * (level - 1);
    uint64_t entry = 0;
    if (!cpu.memory->read_object(table + (linear >> shift & 511) * 8, entry)) return {};
    if ((entry & pte::present) == 0 || (entry & pte::accessed) == 0 || (entry & reserved) != 0) return {};
    rights &= entry;
    no_execute |= entry & pte::nx;
    if (level > 1 && (entry & pte::large) == 0) {
      table = entry & address_mask;
      continue;
    }
    const uint64_t inside = (uint64_t{1} << shift) - 1;
    if ((rights & pte::user) == 0 || level > 2 ||
        (level == 2 && (entry & inside & address_mask & ~uint64_t{0x1000}) != 0))
      return {};
    return {.used = true,
            .writable = (rights & pte::write) && (entry & pte::dirty),
            .executable = no_execute == 0,
            .gpa = (entry & address_mask & ~inside) | (linear & inside & address_mask)};
  }
  return {};
}

}  // namespace caisson::jit::mmu
