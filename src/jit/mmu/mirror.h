// Guest user address spaces mirrored in the host's: the pages that a process of the guest uses are mapped at "their
// address plus a constant", so that translated code reaches them by the host's own MMU, without a look-up.
//   Design   docs/decisions/0012-mirrors.md: why no address that a guest can form leads anywhere else
//   What     a mirror holds what the processor's translation caches for user accesses may hold for one PCID (SDM vol.
//   3,
//            4.10), and is dropped when those must be. It is begun for an address space that timer interrupts keep
//            finding in user mode: making one costs microseconds for each page.
//   Threads  the vCPU's own, between instructions with the FPU state put away, or in the handler of a host fault that
//            translated code raised; revoke() any thread
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "jit/cpu.h"
#include "jit/mmu/candidates.h"

namespace caisson::jit {

class Mirror {
 public:
  // Addresses with the same bits 40 to 47 make a region; each region in use has as much address space on the host.
  static constexpr unsigned region_shift = 40;
  static constexpr size_t regions = std::tuple_size_v<decltype(Cpu::mirror_addends)>;
  // Regions below and from this one on, the two halves, are moved by one distance each: a program that stands at the
  // bottom of its address space has its stack and its libraries at the top, and there is no room to move both alike.
  static constexpr unsigned first_upper_region = 0x70;
  [[nodiscard]] static bool in_upper_half(uint64_t linear) { return linear >> region_shift >= first_upper_region; }

  // `patience`: how many timer interrupts in a row must find an address space in user mode; 0: it is mirrored at once.
  Mirror(Cpu& cpu, unsigned patience);
  ~Mirror();
  Mirror(const Mirror&) = delete;
  Mirror& operator=(const Mirror&) = delete;

  // Can this host do it at all?
  [[nodiscard]] static bool possible();

  // In 64-bit user mode, where begin() is not left to interrupted().
  [[nodiscard]] bool wanted() const { return patience_ == 0 && active_ == nullptr; }
  // Mirrors the address space from now on, if that is possible.
  void begin();
  // An interrupt found the vCPU in 64-bit user mode.
  void interrupted();

  void address_space_changed(unsigned pcid, bool keep);
  void drop_pcid(unsigned pcid);
  void drop_page(uint64_t linear);
  void drop_large_page(uint64_t linear, unsigned shift);
  void drop_all();

  // Whether translated code for mirrors can begin with this stack pointer.
  [[nodiscard]] static bool stack_is_mirrored(const Cpu& cpu) {
    const uint64_t region = cpu.gpr[x86::Rsp] >> region_shift;
    return region < regions && cpu.mirror_valid[region];
  }
  // Before it does: what translated code takes for granted. Returns host address less linear address of the stack.
  [[nodiscard]] uint64_t before_entry();
  // The vCPU's thread, from now on, is the one that calls.
  void enter_thread() { gs_ = 1; }

  // A host fault at this address in translated code: true if the access will succeed now.
  [[nodiscard]] bool fault(uint64_t host_address, bool write);
  // The guest-physical page may not be stored to without the engine's knowing any more.
  void revoke(Gpa page);

 private:
  struct Region {
    unsigned number = 0;
    uint64_t addend = 0;
  };
  struct Page {
    Gpa gpa = 0;
    bool writable = false;
  };
  struct Space {
    unsigned pcid = 0;
    unsigned credit = 0;                                  // host faults in vain that are left
    std::vector<Region> regions;                          // in rising order
    std::unordered_map<uint64_t, Page> pages;             // by linear address
    std::unordered_multimap<Gpa, uint64_t> linear_pages;  // the writable ones of `pages`
  };

  void activate(Space* space);
  [[nodiscard]] uint64_t to_nowhere(size_t region) const;
  void end(Space& space);
  [[nodiscard]] Candidates::Candidate& candidate() { return candidates_.of(cpu_.cr3); }
  [[nodiscard]] bool map(Space& space, uint64_t linear, Gpa gpa, size_t count, bool writable);
  [[nodiscard]] size_t neighbours(const Space& space, uint64_t linear, Gpa gpa, bool writable) const;
  void unmap(Space& space, uint64_t linear);
  void forget_writable(Space& space, uint64_t linear, Gpa gpa);
  [[nodiscard]] static bool find_room(std::span<Region> half);
  static void give_back(std::span<const Region> some);
  [[nodiscard]] static uint8_t* host_of(const Space& space, uint64_t linear);

  Cpu& cpu_;
  const unsigned patience_;
  std::mutex lock_;                             // taken before the code lock
  std::vector<std::unique_ptr<Space>> spaces_;  // the one used last is the last
  Space* active_ = nullptr;
  size_t stack_region_ = 0;
  uint64_t gs_ = 1, fs_ = 1;  // what the host's GS is, and FS was when Cpu::mirror_fs was made; 1: unknown
  Candidates candidates_;
  uint8_t* nowhere_ = nullptr;  // address space for a region that nothing is ever mapped in
  unsigned strays_ = 0;         // accesses to other regions
};

}  // namespace caisson::jit
