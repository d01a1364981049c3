// Hardware breakpoints, and the alignment check, on data accesses.
//   Source   Intel SDM vol. 3, 17.2 (debug registers), 6.15 #AC
#include "jit/interpret/breakpoints.h"

#include <bit>

#include "jit/interpret/operands.h"

namespace caisson::jit {

uint32_t breakpoint_hits(const Cpu& cpu, uint64_t address, unsigned size, BreakOn on) {
  uint32_t hits = 0;
  const uint64_t dr7 = cpu.dr[7];
  for (unsigned i = 0; i < 4; ++i) {
    if (!(dr7 >> (2 * i) & 3)) continue;
    const auto kind = static_cast<BreakOn>(dr7 >> (16 + 4 * i) & 3);
    if (kind != on && !(on == BreakOn::Write && kind == BreakOn::ReadWrite)) continue;
    if (kind == BreakOn::Port && !(cpu.cr4 & x86::cr4::de)) continue;
    constexpr std::array<uint8_t, 4> lengths = {1, 2, 8, 4};
    const uint64_t length = lengths[dr7 >> (18 + 4 * i) & 3];
    const uint64_t start = cpu.dr[i] & ~(length - 1);
    if (address < start + length && start < address + size) hits |= 1u << i;
  }
  return hits;
}

bool watched_access(Step& step, uint64_t linear, unsigned size, bool write) {
  Cpu& cpu = step.cpu;
  if ((cpu.rflags & x86::rflags::ac) && (cpu.cr0 & x86::cr0::am) && cpu.cpl == 3) {
    // Far pointers and the like are aligned as their offset is; powers of two cover the rest.
    const unsigned alignment = std::bit_floor(std::min(size, 8u));
    if (linear & (alignment - 1)) return raise(cpu, x86::Ac, 0);
  }
  step.breakpoints |= breakpoint_hits(cpu, linear, size, write ? BreakOn::Write : BreakOn::ReadWrite);
  return true;
}

std::mutex& device_lock() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace caisson::jit
