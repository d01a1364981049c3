// Local APIC of one CPU, in xAPIC and x2APIC mode.
//   Spec     Intel SDM vol. 3, chapter 11 (order 253668-079); names of registers follow its table 11-1 and 11-6
//   Models   IRR/ISR/TMR, TPR/PPR, all local vectors, timer (one-shot, periodic, TSC deadline), ICR with every
//   destination
//            and shorthand, self-IPI, ESR, IA32_APIC_BASE transitions, virtual wire (ExtINT through LINT0)
//   Omits    SMI, thermal and performance sources, focus processor, EOI-broadcast suppression, CMCI, level-triggered
//   fixed
//            LINT0. The APIC id is read-only (as on CPUs since Nehalem) and equals the CPU's index in both modes.
//   Threads  CpuInterrupts is called by the vCPU's thread without the device lock. accept(), matches_logical() and
//            set_lint0() come from any thread, with or without that lock: what they touch (IRR, TMR, events, pending
//            errors, LVTs, LDR, DFR, PPR) is only touched through atomic_ref. ISR, TPR and the rest belong to the
//            vCPU's thread. The timer has a lock of its own, inside the device lock. reset, save, restore: no CPU runs.
//   Kept     where an engine keeps the CPU's local APIC itself (bus/interrupt.h), this only holds its saved state:
//            nothing is delivered here and the timer stands still, until release()
//   TSC      IA32_TSC_DEADLINE is compared with Clock::tsc(); an engine that gives the guest an offset adds and
//   subtracts it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/fields.h"
#include "base/result.h"
#include "bus/clock.h"
#include "bus/interrupt.h"
#include "bus/local_apic_state.h"
#include "devices/chipset/apic_bus.h"

namespace caisson {

class LocalApic final : public CpuInterrupts, public LocalApicModel {
 public:
  enum LocalVector : uint8_t { LvtTimer, LvtThermal, LvtPerformance, LvtLint0, LvtLint1, LvtError, lvt_count };
  static_assert(lvt_count == LocalApicState::lvt_count);

  using State = LocalApicState;

  LocalApic(ApicBus& bus, Clock& clock, unsigned index, unsigned physical_bits, bool x2apic_supported);
  ~LocalApic() override;
  LocalApic(const LocalApic&) = delete;
  LocalApic& operator=(const LocalApic&) = delete;

  // Before the CPU runs. Without a sink nobody is told; the state is right all the same.
  void connect(CpuSink& sink) { sink_ = &sink; }

  [[nodiscard]] std::string_view name() const { return name_; }
  [[nodiscard]] unsigned index() const { return index_; }
  void reset();
  void save(fields::Buffer& out) const;
  [[nodiscard]] Result<> restore(std::span<const uint8_t> in);

  // CpuInterrupts
  [[nodiscard]] bool pending() const override;
  [[nodiscard]] std::optional<Taken> take_event(bool nmi_allowed) override;
  [[nodiscard]] bool interrupt_ready() const override;
  [[nodiscard]] std::optional<uint8_t> acknowledge() override;
  [[nodiscard]] uint32_t read_register(uint32_t offset) override;
  void write_register(uint32_t offset, uint32_t value) override;
  [[nodiscard]] std::optional<uint64_t> read_msr(uint32_t msr) override;
  [[nodiscard]] bool write_msr(uint32_t msr, uint64_t value) override;
  [[nodiscard]] uint64_t apic_base() const override;
  [[nodiscard]] uint8_t cr8() const override;
  void set_cr8(uint8_t value) override;

  [[nodiscard]] LocalApicModel* model() override { return this; }

  // LocalApicModel
  [[nodiscard]] State state() const override;
  void take(const State& state) override;
  [[nodiscard]] bool ext_int() const override;
  [[nodiscard]] std::optional<uint8_t> acknowledge_ext_int() override { return bus_.acknowledge_ext_int(); }
  void broadcast_eoi(uint8_t vector) override { bus_.end_of_interrupt(vector); }

  // No CPU runs: an engine takes the local APIC over, and gives it back.
  void keep();
  void release();

  // From the bus. accept() is false where nothing takes it (disabled, or a mode that is ignored).
  bool accept(DeliveryMode mode, uint8_t vector, bool level);
  [[nodiscard]] bool matches_logical(uint32_t destination, bool wide) const;
  [[nodiscard]] bool accepts_fixed() const;
  [[nodiscard]] unsigned processor_priority() const;
  void set_lint0(bool high);

 private:
  enum class Mode : uint8_t { Disabled, Xapic, X2apic };
  [[nodiscard]] Mode mode() const;

  [[nodiscard]] std::optional<uint32_t> read_common(uint32_t number);
  bool write_common(uint32_t number, uint32_t value);
  void set_tpr(uint32_t value);
  void set_svr(uint32_t value);
  void set_lvt(unsigned which, uint32_t value);
  [[nodiscard]] bool set_apic_base(uint64_t value);
  void end_of_interrupt();
  void send_ipi(uint64_t icr, bool wide);
  void self_ipi(uint8_t vector);
  void initialize();  // registers as after INIT (11.4.7.3)

  bool post(uint8_t vector, bool level);
  void post_local(LocalVector which);
  void post_event(DeliveryMode mode, uint8_t vector);
  void raise_error(uint32_t error);
  void notify() const;
  void notify_if_ready() const;
  void update_ppr();
  [[nodiscard]] bool ext_int_ready() const;
  [[nodiscard]] bool lvt_masked(unsigned which) const;

  // The timer; all with timer_lock_ held.
  using TimerMode = LocalApicState::TimerMode;
  [[nodiscard]] TimerMode timer_mode() const;
  [[nodiscard]] uint64_t divisor() const;
  [[nodiscard]] uint32_t current_count() const;
  void start_count();
  void stop_timer();
  void start_deadline();
  void arm(uint64_t deadline_ns);
  void timer_expired();

  ApicBus& bus_;
  Clock& clock_;
  const unsigned index_;
  const uint64_t base_reserved_;  // bits of IA32_APIC_BASE that must be 0
  const std::string name_;
  CpuSink* sink_ = nullptr;

  State state_;
  std::atomic<bool> kept_{false};
  uint32_t ppr_ = 0;  // follows from TPR and ISR

  mutable std::mutex timer_lock_;
  uint64_t armed_ns_ = 0;  // what timer_ is armed for; 0: nothing. May lie before the deadline, never after it
  std::unique_ptr<Clock::Timer> timer_;
};

}  // namespace caisson
