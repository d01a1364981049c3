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
//   TSC      IA32_TSC_DEADLINE is compared with Clock::tsc(); an engine that gives the guest an offset adds and
//   subtracts it.
#pragma once

#include <array>
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
#include "devices/chipset/apic_bus.h"

namespace caisson {

class LocalApic final : public CpuInterrupts {
 public:
  enum LocalVector : uint8_t { LvtTimer, LvtThermal, LvtPerformance, LvtLint0, LvtLint1, LvtError, lvt_count };

  struct State {
    uint64_t apic_base = 0;
    uint32_t tpr = 0;
    uint32_t ldr = 0;
    uint32_t dfr = 0;
    uint32_t svr = 0;
    uint32_t esr = 0;
    uint32_t pending_errors = 0;
    uint64_t icr = 0;
    std::array<uint32_t, lvt_count> lvt{};
    std::array<uint32_t, 8> isr{};
    std::array<uint32_t, 8> tmr{};
    std::array<uint32_t, 8> irr{};
    uint32_t events = 0;  // INIT, SIPI (and its vector), NMI not yet taken
    bool lint0 = false;
    uint32_t initial_count = 0;
    uint32_t divide_configuration = 0;
    uint64_t timer_deadline_ns = 0;  // when the running count reaches 0; 0: not running
    uint64_t tsc_deadline = 0;

    static constexpr auto fields() {
      using fields::row;
      return fields::table<State>(
          row<1>("apic_base", &State::apic_base), row<2>("tpr", &State::tpr), row<3>("ldr", &State::ldr),
          row<4>("dfr", &State::dfr), row<5>("svr", &State::svr), row<6>("esr", &State::esr),
          row<7>("pending_errors", &State::pending_errors), row<8>("icr", &State::icr), row<9>("lvt", &State::lvt),
          row<10>("isr", &State::isr), row<11>("tmr", &State::tmr), row<12>("irr", &State::irr),
          row<13>("events", &State::events), row<14>("lint0", &State::lint0),
          row<15>("initial_count", &State::initial_count),
          row<16>("divide_configuration", &State::divide_configuration),
          row<17>("timer_deadline_ns", &State::timer_deadline_ns), row<18>("tsc_deadline", &State::tsc_deadline));
    }
  };

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
  enum class TimerMode : uint8_t { OneShot, Periodic, TscDeadline, Reserved };
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
  uint32_t ppr_ = 0;  // follows from TPR and ISR

  mutable std::mutex timer_lock_;
  uint64_t armed_ns_ = 0;  // what timer_ is armed for; 0: nothing. May lie before the deadline, never after it
  std::unique_ptr<Clock::Timer> timer_;
};

}  // namespace caisson
