// Guest linear memory for the interpreter and the slow paths: page walks, translation caches, device accesses,
// invalidation of translated code.
//   Source   Intel SDM vol. 3, chapter 4
//   Threads  the vCPU's own thread
//   Errors   false / null with cpu.fault raised: the guest's #PF (or the mode's #GP where said)
// Linear addresses are full 64-bit values; outside 64-bit mode the caller truncates to 32 bits. Canonical checks are
// the caller's (#GP or #SS depend on the segment), see canonical(); a non-canonical address never reaches memory: it
// reads as a fault here, too.
#pragma once

#include <cstdint>
#include <cstring>

#include "jit/cpu.h"

namespace caisson::jit {

enum class Access : uint8_t { Read, Write, Execute };

// As whom: by the current CPL and AC, or as the processor itself (descriptor tables, TSS: implicit supervisor access).
enum class As : uint8_t { Current, System };

[[nodiscard]] inline bool canonical(uint64_t linear) {
  return static_cast<uint64_t>(static_cast<int64_t>(linear << 16) >> 16) == linear;
}

namespace mmu {

// Any size and alignment, page crossings and devices included. A write that crosses pages resolves both before it
// stores.
[[nodiscard]] bool read_bytes(Cpu& cpu, uint64_t linear, void* out, unsigned size, As as = As::Current);
[[nodiscard]] bool write_bytes(Cpu& cpu, uint64_t linear, const void* in, unsigned size, As as = As::Current);

[[nodiscard]] inline const Tlb& tlb(const Cpu& cpu, As as) {
  return cpu.tlb[as == As::System ? 0 : static_cast<unsigned>(cpu.tlb_mode)];
}

template <class T>
[[nodiscard]] inline bool read(Cpu& cpu, uint64_t linear, T& out, As as = As::Current) {
  const Tlb& cache = tlb(cpu, as);
  const unsigned slot = linear >> 12 & (tlb_entries - 1);
  if (cache.read_tag[slot] == ((linear + sizeof(T) - 1) & ~uint64_t{0xfff})) [[likely]] {
    std::memcpy(&out, reinterpret_cast<const void*>(linear + cache.addend[slot]), sizeof(T));
    return true;
  }
  return read_bytes(cpu, linear, &out, sizeof(T), as);
}

template <class T>
[[nodiscard]] inline bool write(Cpu& cpu, uint64_t linear, const T& value, As as = As::Current) {
  const Tlb& cache = tlb(cpu, as);
  const unsigned slot = linear >> 12 & (tlb_entries - 1);
  if (cache.write_tag[slot] == ((linear + sizeof(T) - 1) & ~uint64_t{0xfff})) [[likely]] {
    std::memcpy(reinterpret_cast<void*>(linear + cache.addend[slot]), &value, sizeof(T));
    return true;
  }
  return write_bytes(cpu, linear, &value, sizeof(T), as);
}

// Checks that [linear, linear+size) could be accessed so, without accessing it (sets A and D bits as an access would).
[[nodiscard]] bool probe(Cpu& cpu, uint64_t linear, unsigned size, Access access, As as = As::Current);

// For read-modify-write and for native instructions on memory: the host address of [linear, linear+size) for a write
// (or read) if it lies in one page of RAM. null with cpu.fault raised: it faults. null without: a device or a page
// crossing; use read/write. After a write through the pointer call wrote().
struct Host {
  uint8_t* pointer = nullptr;
  Gpa gpa = 0;
};
[[nodiscard]] Host host_for_write(Cpu& cpu, uint64_t linear, unsigned size);
[[nodiscard]] Host host_for_read(Cpu& cpu, uint64_t linear, unsigned size);
void wrote(Cpu& cpu, const Host& host, unsigned size);

// Longest run, at most `size` bytes, from `linear` (upwards) that one plain host access range can serve: for string
// instructions. Returns 0 where host_for_* would give null.
[[nodiscard]] unsigned run_for_read(Cpu& cpu, uint64_t linear, unsigned size, uint8_t*& host);
[[nodiscard]] unsigned run_for_write(Cpu& cpu, uint64_t linear, unsigned size, Host& host);

// The page that code at `linear` is fetched from; false with cpu.fault raised.
[[nodiscard]] bool code_page(Cpu& cpu, uint64_t linear, CodePage& out);

// Copies up to 15 instruction bytes from `linear` for execution. Returns how many before the first page that cannot be
// fetched; 0 with cpu.fault raised when the very first byte cannot. Where fewer than 15 are returned and the decoder
// needs more, call fetch_fault() to raise the fault of the next page.
[[nodiscard]] unsigned fetch(Cpu& cpu, uint64_t linear, uint8_t* out);
bool fetch_fault(Cpu& cpu, uint64_t linear);

// Like a page walk for debugging: no A/D updates, no faults.
[[nodiscard]] bool debug_translate(const Cpu& cpu, uint64_t linear, Gpa& out);

// --- invalidation: called by the interpreter at the instructions that architecturally flush --------------------------
void drop_stack_pages(Cpu& cpu);             // whenever an entry of the translation cache may go, or lose its write tag
void flush_all(Cpu& cpu);                    // everything, global entries too
void flush_page(Cpu& cpu, uint64_t linear);  // INVLPG; INVPCID type 0 for the PCID in force
// After CR3 changed; `keep`: CR4.PCIDE and bit 63 of the source operand.
void cr3_changed(Cpu& cpu, bool keep);
void flush_pcid(Cpu& cpu, uint16_t pcid);  // INVPCID type 1, and type 0 for another PCID
void flush_pcids(Cpu& cpu);                // INVPCID type 3: everything but global entries (type 2 is flush_all)
// PAE paging: loads the four PDPTEs from CR3; false with #GP raised when a reserved bit is set.
[[nodiscard]] bool load_pdptes(Cpu& cpu, uint64_t cr3);

}  // namespace mmu
}  // namespace caisson::jit
