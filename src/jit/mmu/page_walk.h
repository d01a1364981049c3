// Walks the guest's page tables: 32-bit, PAE and 4-level paging, with permission checks and A/D updates.
//   Source   Intel SDM vol. 3, 4.3-4.8 (paging modes, access rights, page-fault exceptions, accessed and dirty flags)
//   Threads  the vCPU's own; entries are updated with atomic compare-and-swap, as hardware does
// Compiled without vector registers: it runs while the guest's SIMD state is live in the host's.
#pragma once

#include "jit/cpu.h"
#include "jit/mmu/mmu.h"

namespace caisson::jit::mmu {

// Bits of a table's entry (4.5.4), and of it the address.
namespace pte {
inline constexpr uint64_t present = 1, write = 2, user = 4, accessed = 1 << 5, dirty = 1 << 6, large = 1 << 7,
                          global = 1 << 8, nx = uint64_t{1} << 63;
}
inline constexpr uint64_t address_mask = 0x000f'ffff'ffff'f000;
// Bits of an address that the CPU model does not have.
[[nodiscard]] inline uint64_t reserved_physical(const Cpu& cpu) {
  return address_mask & ~((uint64_t{1} << cpu.model->physical_bits()) - 1);
}

struct Walk {
  Gpa gpa = 0;            // of the 4 KiB page that holds the address
  bool writable = false;  // a write by the same party needs no further walk (permitted, and D is set)
  bool user_page = false;
  bool global = false;
  bool large = false;  // mapped by a page above 4 KiB
  uint8_t shift = 12;  // log2 of that page's size
};

// Who accesses: user (CPL 3) or supervisor, and whether a supervisor may touch user pages.
// False with cpu.fault raised (#PF with error code and address; CR2 is written at delivery).
[[nodiscard]] bool walk(Cpu& cpu, uint64_t linear, Access access, TlbMode mode, Walk& out);

// Makes a translation-cache entry for the page if it is RAM. False: fault raised, or a device (fault not raised, `gpa`
// set to the device page).
struct Filled {
  bool ok = false;      // translation exists
  bool ram = false;     // and is RAM: `host` is valid
  bool direct = false;  // (writes) may be stored to without telling anybody
  Gpa gpa = 0;          // of the address itself
  uint8_t* host = nullptr;
};
[[nodiscard]] Filled fill(Cpu& cpu, uint64_t linear, Access access, TlbMode mode);

}  // namespace caisson::jit::mmu
