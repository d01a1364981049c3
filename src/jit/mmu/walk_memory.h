// Results of page walks, kept beyond the translation caches of cpu.h: larger, and with the address spaces of other
// PCIDs. Architecturally a part of the TLB (SDM vol. 3, 4.10.2): entries are only as good as the last invalidation.
//   Pages     of 4 KiB; pieces of 2 MiB of everything larger
//   Validity  an entry is good while its generation is the one in force: one for global pages, one for each PCID
//   Threads   the vCPU's own; used while the guest's vector registers are live
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "memory/guest_memory.h"

namespace caisson::jit {

class WalkMemory {
 public:
  struct Found {
    Gpa gpa = 0;  // of the 4 KiB page
    bool writable = false;
    bool global = false;
    bool large = false;
  };
  // Whether the linear page is known in that mode (0 to 2, a TlbMode).
  [[nodiscard]] bool find(uint64_t linear, unsigned mode, Found& out) const {
    if (const Entry& entry = small_[small_index(linear, mode)]; matches(entry, linear >> 12, mode)) {
      out = {.gpa = entry.gpa, .writable = entry.writable, .global = entry.global, .large = false};
      return true;
    }
    if (const Entry& entry = large_[large_index(linear, mode)]; matches(entry, linear >> 21, mode)) {
      out = {
          .gpa = entry.gpa | (linear & 0x1f'f000), .writable = entry.writable, .global = entry.global, .large = true};
      return true;
    }
    return false;
  }
  void put(uint64_t linear, unsigned mode, const Found& walk) {
    Entry& entry = walk.large ? large_[large_index(linear, mode)] : small_[small_index(linear, mode)];
    entry = {.page = walk.large ? linear >> 21 : linear >> 12,
             .generation = walk.global ? global_ : local_,
             .gpa = walk.large ? walk.gpa & ~Gpa{0x1f'ffff} : walk.gpa,
             .mode = static_cast<uint8_t>(mode),
             .writable = walk.writable,
             .global = walk.global};
  }

  // INVLPG: whatever the PCID (4.10.4.1 asks for the one in force, and for global pages of any).
  void drop_page(uint64_t linear) {
    for (unsigned mode = 0; mode < modes; ++mode) {
      Entry& small = small_[small_index(linear, mode)];
      if (small.page == linear >> 12) small.generation = 0;
      Entry& large = large_[large_index(linear, mode)];
      if (large.page == linear >> 21) large.generation = 0;
    }
  }
  void drop_all() {
    global_ = ++newest_;
    drop_all_pcids();
  }
  // MOV CR3: `keep` what is known of the PCID, or not.
  void change_pcid(unsigned pcid, bool keep) {
    pcid_ = pcid % pcids;
    pcids_used_ = pcids_used_ || pcid_ != 0;
    if (!keep || of_pcid_[pcid_] == 0) {
      drop_pcid(pcid_);
    } else {
      local_ = of_pcid_[pcid_];
    }
  }
  void drop_pcid(unsigned pcid) {
    if (pcid % pcids == pcid_) {
      local_ = of_pcid_[pcid_] = ++newest_;
    } else {
      of_pcid_[pcid % pcids] = 0;
    }
  }
  void drop_all_pcids() {
    if (pcids_used_) of_pcid_.fill(0);
    drop_pcid(pcid_);
  }

 private:
  static constexpr unsigned modes = 3, pcids = 4096;
  static constexpr unsigned small_bits = 12, large_bits = 8;
  struct Entry {  // all zero at first
    uint64_t page;
    uint64_t generation;  // 0: empty
    Gpa gpa;
    uint8_t mode;
    bool writable;
    bool global;
  };
  static size_t small_index(uint64_t linear, unsigned mode) {
    const uint64_t page = linear >> 12;
    return (page ^ page >> small_bits ^ uint64_t{mode} << (small_bits - 2)) & ((1u << small_bits) - 1);
  }
  static size_t large_index(uint64_t linear, unsigned mode) {
    const uint64_t page = linear >> 21;
    return (page ^ page >> large_bits ^ uint64_t{mode} << (large_bits - 2)) & ((1u << large_bits) - 1);
  }
  [[nodiscard]] bool matches(const Entry& entry, uint64_t page, unsigned mode) const {
    return entry.page == page && entry.mode == mode && entry.generation == (entry.global ? global_ : local_);
  }

  // Zeroed memory is not touched before it is used, see Cpu.
  std::array<Entry, size_t{1} << small_bits> small_;
  std::array<Entry, size_t{1} << large_bits> large_;
  std::array<uint64_t, pcids> of_pcid_;  // 0: nothing known
  bool pcids_used_ = false;              // any but 0
  uint64_t newest_ = 2, global_ = 1, local_ = 2;
  unsigned pcid_ = 0;
};

}  // namespace caisson::jit
