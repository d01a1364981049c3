// Address spaces that timer interrupts find in user mode, and how often: which is worth a mirror, or direct execution.
//   Threads  the vCPU's own
#pragma once

#include <array>
#include <cstdint>

namespace caisson::jit {

class Candidates {
 public:
  // `patience`: how many interrupts have to find one at first.
  explicit Candidates(unsigned patience) : patience_(patience) {}

  struct Candidate {
    uint64_t cr3 = ~uint64_t{0};
    unsigned seen = 0, needed = 0;  // interrupts that found it in user mode
  };
  // The one with that CR3; new, in place of the one that was seen least, where there is none.
  [[nodiscard]] Candidate& of(uint64_t cr3) {
    Candidate* place = all_.begin();
    for (Candidate& one : all_) {
      if (one.cr3 == cr3) return one;
      if (one.seen < place->seen) place = &one;
    }
    // Every one that is there grows older, so that none keeps its place for ever.
    for (Candidate& one : all_) one.seen -= one.seen > 1;
    *place = {.cr3 = cr3, .seen = 0, .needed = patience_};
    return *place;
  }
  void forget(uint64_t cr3) {
    for (Candidate& one : all_) {
      if (one.cr3 == cr3) one.seen = 0;
    }
  }

 private:
  const unsigned patience_;
  std::array<Candidate, 4> all_{};
};

}  // namespace caisson::jit
