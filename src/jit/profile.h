// Where a vCPU of the jit engine spends its exits: what `--trace profile` prints at the end. Off, it costs one branch.
//   Threads  the vCPU's own; report() when it has stopped
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "jit/cpu.h"

namespace caisson::jit {

class Profile {
 public:
  enum Event : uint8_t {
    entries,      // into translated code from the dispatcher
    jump_misses,  // dispatches that had to look the block up in the shared table
    chained,      // jumps patched to go on without the dispatcher
    not_chained,  // jumps that might have been, but their target is not mapped globally
    stale,        // entries into dead blocks
    polls,        // left for an exit request, or a look-up that missed
    translations,
    leaves_interpret,
    leaves_slow,
    leaves_signal,
    leaves_system,
    fills,
    full_flushes,
    partial_flushes,
    page_flushes,
    event_count
  };

  void count(Event event) { ++counts_[event]; }
  void vector(uint8_t number) { ++vectors_[number]; }  // interrupt or exception delivered
  void interpreted(Cpu& cpu, bool slow);               // the instruction at RIP is about to be interpreted
  [[nodiscard]] std::string report(unsigned cpu) const;

 private:
  std::array<uint64_t, event_count> counts_{};
  std::array<uint64_t, 256> vectors_{};
  std::map<std::string, uint64_t> by_mnemonic_;
};

}  // namespace caisson::jit
