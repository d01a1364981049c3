// One virtual CPU of the jit engine: the run loop between interrupts, the interpreter and translated code.
//   Threads  run() on the vCPU's thread; stop(), interrupts_changed(), request() and await() from any
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "jit/cpu.h"
#include "jit/engine.h"
#include "jit/interpret/interpreter.h"
#include "jit/profile.h"

namespace caisson::jit {

class Direct;
class Lockstep;
class Translator;

class JitVcpu final : public Vcpu {
 public:
  JitVcpu(JitEngine& engine, unsigned index, CpuInterrupts& interrupts);
  ~JitVcpu() override;

  [[nodiscard]] ExitReason run() override;
  void stop() override;
  [[nodiscard]] std::string error() const override { return error_; }
  [[nodiscard]] CpuState store() const override;
  [[nodiscard]] Result<> load(const CpuState& state) override;
  void interrupts_changed() noexcept override { kick(); }

  // What other threads may ask of this vCPU; it happens before it runs guest code again.
  enum Request : uint32_t { drop_write_entries = 1, drop_jumps = 2, leave_guest = 4, drop_mirrors = 8 };
  void request(uint32_t requests);
  // Waits until the vCPU runs no guest code that has not seen the requests made before.
  void await(uint32_t requests);
  void await_out_of_guest();

  // While run() is not running.
  void add_profile(Profile::Totals& totals);

  [[nodiscard]] Cpu& cpu() { return *cpu_; }

 private:
  void kick() noexcept;
  void answer_requests();
  void carry_out(uint32_t requests);
  [[nodiscard]] StepResult take_interrupts();
  void sleep();
  [[nodiscard]] StepResult run_guest();
  [[nodiscard]] StepResult run_translated();
  [[nodiscard]] StepResult interpret_one();
  [[nodiscard]] StepResult step_alone();
  [[nodiscard]] StepResult interpret_block();
  template <class GoOn>
  [[nodiscard]] StepResult interpret_while(GoOn go_on);
  void drop_jump_caches();
  void take_turn();
  void give_turn();
  [[nodiscard]] ExitReason differs();
  [[nodiscard]] ExitReason lost_process();

  std::unique_ptr<Cpu> cpu_;
  std::unique_ptr<Direct> direct_;  // null: off
  std::unique_ptr<Mirror> mirror_;  // null: off
  JitEngine& engine_;
  std::atomic<uint32_t> requests_{0};
  std::atomic<bool> in_guest_{false};
  std::atomic<bool> stop_{false};
  std::atomic<bool> sleeping_{false};
  std::string error_;
  Profile profile_;
  bool look_at_interrupts_ = true;  // something may have changed what can be delivered
  std::unique_ptr<Translator> translator_;
  std::unique_ptr<Lockstep> lockstep_;  // null: off
  bool my_turn_ = false;                // lock-step: see Turns
  unsigned turns_ = 0;
};

}  // namespace caisson::jit
