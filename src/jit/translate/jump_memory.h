// What stands behind the jump caches that translated code looks into: a larger table of the same kind that survives
// changes of the address space. A stub looks into it where a jump cache knows nothing (stubs.cpp, which has to agree
// with find()); the dispatcher does, too, before it asks the code cache.
//   Validity  an entry is good while its generation is the one in force for its kind of code: one for supervisor code
//             (mapped globally as a rule), one for each PCID for user code. A flush takes a new generation into use; a
//             switch that keeps a PCID's translations (MOV CR3 with bit 63, SDM vol. 3, 4.10.4.1) goes back to its own.
//   Threads   the vCPU's own; used while the guest's vector registers are live
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace caisson::jit {

class JumpMemory {
 public:
  // Code of the block at linear address `rip` in the mode, or null.
  [[nodiscard]] const uint8_t* find(uint64_t rip, uint32_t mode, bool user) const {
    const Entry& entry = entries_[index(rip)];
    return entry.rip == rip && entry.tag == tag(mode, user) ? entry.code : nullptr;
  }
  void put(uint64_t rip, uint32_t mode, bool user, const uint8_t* code) {
    entries_[index(rip)] = {.rip = rip, .tag = tag(mode, user), .code = code};
    note_page(rip);
  }
  void note_page(uint64_t linear) {
    const uint64_t page = linear >> 12;
    pages_[page_word(page)] |= page_bit(page);
  }
  void drop(uint64_t rip) { entries_[index(rip)].tag = 0; }

  // User code by its guest-physical address: good in every address space that has it, so a new process finds what
  // others ran. The stub that looks here has the page's mapping from Cpu::code_pages. Nothing but the loss of all code
  // makes these entries invalid. (A dead block's code leads to the dispatcher, which therefore asks the code cache.)
  // Of two places an entry takes the one that was taken longer ago.
  void put_physical(uint64_t gpa, uint32_t mode, const uint8_t* code) {
    PhysicalEntry* const places = &physical_entries_[physical_index(gpa)];
    const uint64_t key = physical_key(gpa, mode);
    if (places[0].key != key) places[1] = places[0];
    places[0] = {.key = key, .code = code};
  }
  [[nodiscard]] const uint8_t* find_physical(uint64_t gpa, uint32_t mode) const {
    const PhysicalEntry* const places = &physical_entries_[physical_index(gpa)];
    const uint64_t key = physical_key(gpa, mode);
    return places[0].key == key ? places[0].code : places[1].key == key ? places[1].code : nullptr;
  }
  void forget_physical() { physical_entries_.fill({}); }

  // Whether code of the linear page may ever have been noted since the last flush of everything.
  [[nodiscard]] bool may_have_page(uint64_t linear) const {
    const uint64_t page = linear >> 12;
    return pages_[page_word(page)] & page_bit(page);
  }

  // `pages_too`: Cpu::code_pages are empty.
  void flush_all(bool pages_too) {
    supervisor_ = ++newest_;
    if (pages_too) pages_.fill(0);
    flush_all_pcids();
  }
  void flush_supervisor() { supervisor_ = ++newest_; }
  // User code of the PCID in force.
  void flush_user() { flush_user(pcid_); }
  // MOV CR3: `keep` what is known of the PCID, or not.
  void change_pcid(unsigned pcid, bool keep) {
    pcid_ = pcid % pcids;
    pcids_used_ = pcids_used_ || pcid_ != 0;
    if (!keep || pcid_generation_[pcid_] == 0) {
      flush_user(pcid_);
    } else {
      user_ = pcid_generation_[pcid_];
    }
  }
  // INVPCID for a PCID that is not in force, or is.
  void flush_pcid(unsigned pcid) {
    if (pcid % pcids == pcid_) {
      flush_user(pcid_);
    } else {
      pcid_generation_[pcid % pcids] = 0;
    }
  }
  void flush_all_pcids() {
    if (pcids_used_) pcid_generation_.fill(0);
    flush_user(pcid_);
  }

  struct Entry {        // all zero at first
    uint64_t rip, tag;  // tag 0: empty
    const uint8_t* code;
  };
  struct PhysicalEntry {  // all zero: empty (a mode is not zero)
    uint64_t key;         // guest-physical address, the mode in the bits from mode_shift on
    const uint8_t* code;
  };
  static constexpr unsigned bits = 16, index_shift = 13, tag_shift = 16;
  static constexpr unsigned pair_bits = 17, mode_shift = 48;
  // For the stub: where entries and the generations for the two kinds of code stand.
  [[nodiscard]] static size_t entries_offset() { return offsetof(JumpMemory, entries_); }
  [[nodiscard]] static size_t physical_entries_offset() { return offsetof(JumpMemory, physical_entries_); }
  [[nodiscard]] static size_t generation_offset(bool user) {
    return user ? offsetof(JumpMemory, user_) : offsetof(JumpMemory, supervisor_);
  }

 private:
  static constexpr unsigned pcids = 4096;
  static size_t index(uint64_t rip) { return (rip ^ rip >> index_shift) & ((1u << bits) - 1); }
  // Of the first of two.
  static size_t physical_index(uint64_t gpa) { return ((gpa ^ gpa >> index_shift) & ((1u << pair_bits) - 1)) * 2; }
  static uint64_t physical_key(uint64_t gpa, uint32_t mode) { return gpa | uint64_t{mode} << mode_shift; }
  static constexpr unsigned page_bits = 16;
  static size_t page_word(uint64_t page) { return (page ^ page >> page_bits) >> 6 & ((1u << (page_bits - 6)) - 1); }
  static uint64_t page_bit(uint64_t page) { return uint64_t{1} << ((page ^ page >> page_bits) & 63); }
  [[nodiscard]] uint64_t tag(uint32_t mode, bool user) const {
    return (user ? user_ : supervisor_) << tag_shift | mode;
  }
  void flush_user(unsigned pcid) { user_ = pcid_generation_[pcid] = ++newest_; }

  std::array<Entry, size_t{1} << bits> entries_;  // zeroed memory is not touched before it is used, see Cpu
  std::array<PhysicalEntry, size_t{2} << pair_bits> physical_entries_;
  // A filter: one bit for many pages. 32-bit Linux maps and unmaps pages all the time, next to code.
  std::array<uint64_t, size_t{1} << (page_bits - 6)> pages_{};
  std::array<uint64_t, pcids> pcid_generation_;
  bool pcids_used_ = false;  // any but 0
  uint64_t newest_ = 2, supervisor_ = 1, user_ = 2;
  unsigned pcid_ = 0;
};

}  // namespace caisson::jit
