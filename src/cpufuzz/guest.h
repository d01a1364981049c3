// Runs cases on the jit engine, by interpreter or translator, at the same linear addresses as on the host.
//   Threads  the caller's
#pragma once

#include <memory>

#include "bus/fake_clock.h"
#include "cpufuzz/case.h"
#include "engine/engine.h"
#include "jit/engine.h"

namespace caisson::cpufuzz {

class Guest {
 public:
  // Mirror: the translator, in a mirrored address space. Direct: the host's CPU, where this host can do that; CPL 3.
  enum class By { Interpreter, Translator, Mirror, Direct };
  // `user`: at CPL 3, as on the host; else at CPL 0.
  [[nodiscard]] static Result<std::unique_ptr<Guest>> create(By by, bool user);

  [[nodiscard]] Outcome run(const Case& test);
  [[nodiscard]] const x86::CpuModel& model() const { return *model_; }

 private:
  // No interrupts, but a look at the CPU from its own thread whenever the run loop asks: a HLT ends the run.
  class Quiet final : public CpuInterrupts {
   public:
    [[nodiscard]] bool pending() const override;
    [[nodiscard]] std::optional<Taken> take_event(bool) override { return {}; }
    [[nodiscard]] bool interrupt_ready() const override { return false; }
    [[nodiscard]] std::optional<uint8_t> acknowledge() override { return {}; }
    [[nodiscard]] uint32_t read_register(uint32_t) override { return 0; }
    void write_register(uint32_t, uint32_t) override {}
    [[nodiscard]] std::optional<uint64_t> read_msr(uint32_t) override { return {}; }
    [[nodiscard]] bool write_msr(uint32_t, uint64_t) override { return false; }
    [[nodiscard]] uint64_t apic_base() const override { return 0xfee0'0900; }
    [[nodiscard]] uint8_t cr8() const override { return 0; }
    void set_cr8(uint8_t) override {}

    Vcpu* vcpu = nullptr;
    const Activity* activity = nullptr;
    mutable uint64_t left = 0;  // looks until it counts as endless
  };

  explicit Guest(bool user) : user_(user) {}
  [[nodiscard]] Result<> set_up(By by);
  void put(Gpa gpa, uint64_t value);

  bool direct_ = false;
  bool user_;
  Bus bus_;
  FakeClock clock_;
  Quiet interrupts_;
  std::unique_ptr<x86::CpuModel> model_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<jit::JitEngine> engine_;
  std::unique_ptr<Vcpu> vcpu_;
  CpuState reset_;
  std::vector<uint8_t> former_code_;
};

}  // namespace caisson::cpufuzz
