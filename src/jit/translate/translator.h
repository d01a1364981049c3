// Turns guest code into host code, block by block, and runs it. One per vCPU; the code is shared.
//   Threads  the vCPU's own
#pragma once

#include <memory>

#include "jit/cache/code_cache.h"
#include "jit/cpu.h"
#include "jit/engine.h"
#include "jit/translate/block_builder.h"

namespace caisson::jit {

// Everything besides linear address and bytes that translated code depends on.
[[nodiscard]] ModeWord mode_word(const Cpu& cpu);

// Of the code at RIP, which stands in `page`.
[[nodiscard]] BlockKey block_key(const Cpu& cpu, const CodePage& page, ModeWord mode);

class Translator {
 public:
  Translator(JitEngine& engine, Cpu& cpu);

  void enter_thread();  // the host's GS base becomes this vCPU's Cpu

  // The present mode is one that is translated at all.
  [[nodiscard]] bool translatable() const;

  enum class Outcome : uint8_t {
    Dispatch,          // go round the run loop
    Interpret,         // the interpreter must do the instruction at RIP
    NeedsTranslation,  // call translate_current() out of guest mode
  };
  // Runs translated code from RIP. Compiled without vector registers (dispatch.cpp): the guest's FPU state may be live.
  [[nodiscard]] Outcome run();
  // run() in two, one block at a time, for lock-step; with chain switched off. The FPU state is put away afterwards.
  [[nodiscard]] const Block* find_block(Outcome& otherwise);
  [[nodiscard]] Outcome run_block(const Block& block);
  // Makes the block at RIP. Out of guest mode. False: no room; the caller drops all code while no vCPU runs, and
  // retries.
  [[nodiscard]] bool translate_current();

 private:
  [[nodiscard]] const uint8_t* find_code(Outcome& otherwise);
  [[nodiscard]] Outcome left();
  void departed();

  JitEngine& engine_;
  Cpu& cpu_;
  BlockBuilder builder_;
  uint64_t slot_ = 0;  // the jump to chain to the next block found
  uint64_t slot_generation_ = 0;
  uint64_t slot_rip_ = 0;  // where it leads
  ModeWord slot_mode_ = 0;
  const Block* found_ = nullptr;  // by the last find_code() that looked at the cache
  bool careful_ = false;          // and its target is to be translated with careful checks
  const bool chain_;
};

}  // namespace caisson::jit
