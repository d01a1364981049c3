// Which RAM pages hold translated code, and which vCPUs may store to a page directly. One atomic word per page
// (GuestMemory::page_flags): bit 31 "holds code"; bits 0-23 "vCPU i (mod 24) may have a write entry for it".
//
// Order that makes it safe: a vCPU first sets its own bit, then looks at the code bit; the translator first sets the
// code bit, then looks at the writers' bits and makes those vCPUs drop their entries before the translation is used.
// Whoever comes second sees the other.
#pragma once

#include "jit/cpu.h"

namespace caisson::jit {

inline constexpr unsigned writer_bits = 24;

[[nodiscard]] inline uint32_t writer_bit(const Cpu& cpu) { return 1u << (cpu.index % writer_bits); }

// True: this vCPU may store to the page directly from now on.
[[nodiscard]] inline bool claim_for_writing(Cpu& cpu, Gpa page) {
  std::atomic<uint32_t>& flags = cpu.memory->page_flags(page);
  uint32_t now = flags.load(std::memory_order_relaxed);
  if ((now & writer_bit(cpu)) == 0)
    now = flags.fetch_or(writer_bit(cpu), std::memory_order_seq_cst);
  else
    now = flags.load(std::memory_order_seq_cst);
  return (now & GuestMemory::code_flag) == 0;
}

}  // namespace caisson::jit
