// Lock-step: each block is run by the interpreter first, as a trial whose writes to memory are noted and taken back,
// then by the translator for good; what they made of registers, flags, vector state and memory is compared.
//
// The trial runs on a second Cpu with translation caches of its own, and ends before what must happen once: a device, a
// write to a page with code, a fault, an instruction that the interpreter does anyway. The translator may stop at any
// instruction of the block (a miss it leaves to the interpreter): it is compared with the trial's state there.
//
// Flags that the translator drops because nobody reads them may differ, until somebody does read them: that is a
// difference, too. Memory is compared where the interpreter wrote, and a few bytes around.
//   Threads  the vCPU's own. With several vCPUs one runs at a time (Turns), devices wait meanwhile. Only the host
//   kernel
//            (disk reads on their way) still writes to memory: what differs is run again before it is reported.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "jit/cpu.h"
#include "jit/engine.h"
#include "jit/translate/classify.h"
#include "jit/translate/translator.h"
#include "jit/trial_log.h"

namespace caisson::jit {

// Lets one vCPU run at a time, in the order they ask.
class Turns {
 public:
  void take();
  void give();
  // Gives the turn to whoever waits, and takes it again.
  void pass();

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  uint64_t next_ = 0, now_ = 0;
};

class Lockstep {
 public:
  Lockstep(JitEngine& engine, Cpu& cpu, Translator& translator);

  // As Translator::run(), for one block. The FPU state is put away before and after.
  [[nodiscard]] Translator::Outcome run_block();

  // The first difference, in lines; empty as long as there is none. After it run_block() is not to be called.
  [[nodiscard]] const std::string& difference() const { return difference_; }
  [[nodiscard]] uint64_t rip() const { return points_.empty() ? cpu_.rip : points_.front().rip; }  // of that block

  struct Statistics {
    uint64_t blocks = 0, instructions = 0;  // compared
    uint64_t unchecked = 0;                 // blocks that could not be compared to their end
    uint64_t again = 0;                     // blocks that differed at first: somebody else wrote to memory
  };
  [[nodiscard]] const Statistics& statistics() const { return statistics_; }

 private:
  struct Item {
    uint16_t offset = 0;
    uint8_t length = 0;
    uint8_t element = 0;  // operand size, bytes
    Kind kind = Kind::Interpret;
    bool fpu = false;
    uint32_t reads = 0, overwrites = 0, undefined = 0;  // status flags
  };
  struct Items : std::vector<Item> {
    bool fpu = false;  // any of them touches the vector or x87 state: else that is neither copied nor compared
  };
  // The interpreter's state after as many instructions as its place in points_.
  struct Point {
    std::array<uint64_t, 16> gpr{};
    uint64_t rip = 0, rflags = 0, kernel_gs_base = 0;
    std::array<Segment, 6> segments{};
    size_t writes = 0;       // of the log
    size_t fpu = 0;          // in images_
    uint32_t undefined = 0;  // status flags that have no defined value
    uint32_t dropped = 0;    // status flags that the translator did not keep
  };
  using Image = std::array<uint8_t, xsave_area_size>;

  [[nodiscard]] const Items& items_of(const Block& block);
  [[nodiscard]] bool trial(const Items& items);  // false: dropped flags are read, difference_ is set
  [[nodiscard]] bool one(const Item& item);
  void add_point(const Point& before, const Item* item);
  void back_to_start();
  // Which point the translator's state is that of, or none.
  [[nodiscard]] bool agrees(const Items& items, bool code_32);
  [[nodiscard]] bool same(const Point& point, bool code_32) const;
  [[nodiscard]] bool same_memory(size_t writes) const;
  [[nodiscard]] bool same_string_part(const Item& item, size_t index) const;
  void carry_flags(const Items& items, size_t index);

  // lockstep_report.cpp
  [[nodiscard]] std::string report(const Block& block, const Items& items) const;
  [[nodiscard]] std::string code_text(const Block& block, const Items& items, uint64_t mark) const;
  [[nodiscard]] std::string flags_lost(uint32_t flags, uint64_t reader) const;

  JitEngine& engine_;
  Cpu& cpu_;
  Translator& translator_;
  std::unique_ptr<Cpu> shadow_;
  TrialLog log_;
  std::vector<TrialLog::Foreign> foreign_;
  std::vector<Point> points_;
  std::vector<Image> images_;
  bool with_fpu_ = false;  // images_ are taken: of the start and after each instruction that may change them
  bool cut_ = false;       // the trial ended although the translator may go on
  std::unordered_map<const Block*, Items> items_;
  uint64_t generation_ = 0;
  // Flags dropped by the last block, as long as nothing ran since.
  uint32_t dropped_ = 0;
  uint64_t dropped_rip_ = 0, dropped_instructions_ = 0, dropped_by_ = 0;
  std::string difference_;
  Statistics statistics_;
};

// Whether two XSAVE images hold the same state: components in their initial state need not be written out.
[[nodiscard]] bool same_fpu_state(const std::array<uint8_t, xsave_area_size>& a,
                                  const std::array<uint8_t, xsave_area_size>& b);

}  // namespace caisson::jit
