// One virtual CPU of the kvm engine: enters the guest, and answers what it exits for.
//   Source   Linux Documentation/virt/kvm/api.rst, KVM_RUN and struct kvm_run
//   Models   with the kernel's local APICs: only the PIC's interrupts and EOIs for the IOAPIC are left to do here. With
//            ours: interrupts by KVM_INTERRUPT and the interrupt window; INIT, SIPI and HLT here, since the kernel has
//            no local APIC to follow them; CR8 as the local APIC's TPR
//   Omits    in store(), with our local APICs: a second NMI that waits behind the one being handled; with the kernel's:
//            LINT0 as anything but ExtINT
//   Threads  run() on the vCPU's thread; stop() and interrupts_changed() from any
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include <linux/kvm.h>
#include <sys/types.h>

#include "engine/engine.h"
#include "kvm/engine.h"
#include "kvm/shared_run.h"

namespace caisson::kvm {

class KvmVcpu final : public Vcpu {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Vcpu>> create(KvmEngine& engine, unsigned index,
                                                            CpuInterrupts& interrupts,
                                                            const std::vector<kvm_cpuid_entry2>& cpuid);

  [[nodiscard]] ExitReason run() override;
  void stop() override;
  [[nodiscard]] std::string error() const override { return error_; }
  [[nodiscard]] CpuState store() const override;
  [[nodiscard]] Result<> load(const CpuState& state) override;
  // At most four breakpoints: the processor's.
  [[nodiscard]] Result<> set_debug_stops(const DebugStops& stops) override;
  void interrupts_changed() noexcept override { kick(); }

 private:
  // What entering the guest led to; from TripleFault on run() ends.
  enum class Outcome : uint8_t { Again, Interrupted, TripleFault, Debug, Failed };

  KvmVcpu(KvmEngine& engine, unsigned index, CpuInterrupts& interrupts)
      : engine_(engine),
        interrupts_(interrupts),
        model_(engine.apics() != nullptr ? interrupts.model() : nullptr),
        index_(index) {}
  void kick() noexcept;
  void sleep();
  [[nodiscard]] Outcome enter();
  [[nodiscard]] Outcome handle_exit();
  [[nodiscard]] Outcome run_failed(int error);
  // Ends what the last exit left half done (the register of a read, the rest of a string instruction).
  [[nodiscard]] Outcome complete_access();
  // Has events that the kernel has accepted but not delivered delivered, so that store() sees a state without them.
  [[nodiscard]] Outcome settle();
  [[nodiscard]] bool awake();
  [[nodiscard]] Outcome take_events();
  [[nodiscard]] Outcome take_init();
  void offer_interrupt();

  // kernel_apic.cpp: with the kernel's local APIC.
  void offer_ext_int();
  // Has the kernel accept what waits outside of the local APIC: a timer that has run down, the PIC's vector. The guest
  // does not run.
  [[nodiscard]] Outcome touch();
  // Keeps the timer's state in apic_at_stop_; `at_rest` false: to be done again, since it has run down meanwhile.
  [[nodiscard]] Outcome settle_timer(bool& at_rest);
  [[nodiscard]] Outcome touch_awake();
  [[nodiscard]] Outcome wait_for_late_timer();
  void keep_timer_after_failure();
  void store_apic(CpuState& state) const;
  [[nodiscard]] Result<> load_apic(Activity activity, bool nmi);
  [[nodiscard]] bool in_service(uint8_t vector) const;

  // exits.cpp
  void handle_io();
  void handle_mmio();
  [[nodiscard]] bool is_local_apic(uint64_t address) const;
  [[nodiscard]] bool read_msr(uint32_t number, uint64_t& value);
  [[nodiscard]] bool write_msr(uint32_t number, uint64_t value);
  [[nodiscard]] bool shift_tsc(uint64_t by);
  [[nodiscard]] bool set_tsc_offset(uint64_t offset);
  [[nodiscard]] bool write_apic_base(uint64_t value);
  [[nodiscard]] uint64_t& kept(x86::MsrSlot slot) { return msrs_[static_cast<size_t>(slot)]; }
  // Registers and the bytes at RIP, for an error.
  [[nodiscard]] std::string describe() const;

  KvmEngine& engine_;
  CpuInterrupts& interrupts_;
  LocalApicModel* const model_;  // null: our local APIC
  LocalApicState apic_at_stop_;  // its timer, when run() ended or load() was called
  const unsigned index_;
  Fd fd_;
  SharedRun run_;
  std::vector<SlotMsr> held_;        // slots that the kernel keeps; the others are in msrs_
  std::array<uint64_t, 64> msrs_{};  // by x86::MsrSlot
  Activity activity_ = Activity::Running;
  uint64_t tsc_offset_ = 0;
  bool access_open_ = false;  // the last exit is complete only once the guest is entered again
  std::string error_;

  std::atomic<uint32_t> exit_request_{0};  // as in jit::Cpu: set by any thread, cleared by the run loop
  std::atomic<bool> stop_{false};
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> in_guest_{false};
  std::atomic<pid_t> thread_{0};
};

}  // namespace caisson::kvm
