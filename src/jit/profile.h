// Where a vCPU of the jit engine spends its time: samples by a timer's signal, and counts of events. Off (Cpu::profile
// null) it costs one branch where an event would be counted.
//   Threads  the vCPU's own, its signal handler included; add_to() when it has stopped
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "jit/cpu.h"

namespace caisson::jit {

class CodeCache;

// What the vCPU's thread is doing, unless it is in translated code.
enum class Doing : uint8_t {
  RunLoop,
  Dispatch,  // between two blocks
  Translate,
  Fill,  // misses of the translation caches, string instructions
  Flush,
  Interpret,
  Devices,
  Interrupts,
  Idle,
  Direct,  // user code runs directly, in another process
  // what the sampled address tells
  User,
  Supervisor,
  Stubs,  // the code around blocks: entry, exit, look-ups
  count
};

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
    mirrors,        // address spaces mirrored
    mirror_faults,  // host faults for a page of one
    mirror_pages,   // mapped
    direct_spaces,  // address spaces executed directly
    direct_pages,   // mapped in them
    direct_woken,   // what stopped user code there, in the order of HostProcess::Stop
    direct_system_calls,
    direct_faults,
    direct_traps,
    direct_exceptions,
    direct_vsyscalls,
    direct_gone,
    event_count
  };

  void count(Event event) { ++counts_[event]; }
  void vector(uint8_t number) { ++vectors_[number]; }  // interrupt or exception delivered
  void interpreted(Cpu& cpu, bool slow);               // the instruction at RIP is about to be interpreted

  // Sets what the thread does from here on; returns what it did.
  Doing now(Doing doing) {
    const Doing before = doing_.load(std::memory_order_relaxed);
    doing_.store(doing, std::memory_order_relaxed);
    return before;
  }

  // In the signal handler: `ticks` periods of the timer ended while the thread was at `pc`.
  void sample(const Cpu& cpu, const CodeCache& cache, const uint8_t* pc, uint64_t ticks) noexcept;
  // Finds the blocks of the samples taken so far, which must happen before they are forgotten. Takes the code lock.
  void settle(CodeCache& cache);
  [[nodiscard]] bool half_full() const { return taken_ - settled_ > samples_.size() / 2; }

  // By group and name, see EngineProfile. `tick`: the timer's period, microseconds.
  using Totals = std::map<std::pair<std::string, std::string>, uint64_t>;
  void add_to(Totals& totals, uint64_t tick) const;

 private:
  struct Sample {
    const uint8_t* pc;
    uint64_t code_base, generation, ticks;
  };
  struct BlockName {
    uint64_t linear, gpa;
    auto operator<=>(const BlockName&) const = default;
  };

  std::array<uint64_t, event_count> counts_{};
  std::array<uint64_t, 256> vectors_{};
  std::map<std::string, uint64_t> by_mnemonic_;
  std::atomic<Doing> doing_ = Doing::RunLoop;
  std::array<uint64_t, static_cast<size_t>(Doing::count)> ticks_{};
  std::array<Sample, 2048> samples_;  // those in translated code; a ring
  uint64_t taken_ = 0, settled_ = 0;
  std::map<BlockName, uint64_t> blocks_;
};

// What the thread does for the time of a scope.
class ProfileScope {
 public:
  ProfileScope(const Cpu& cpu, Doing doing) : profile_(cpu.profile) {
    if (profile_ != nullptr) before_ = profile_->now(doing);
  }
  ~ProfileScope() {
    if (profile_ != nullptr) profile_->now(before_);
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  Profile* const profile_;
  Doing before_ = Doing::RunLoop;
};

}  // namespace caisson::jit
