// A vCPU whose local APIC the kernel keeps: the PIC's interrupts, and its state.
//   Source   Linux Documentation/virt/kvm/api.rst: KVM_INTERRUPT (with KVM_CAP_SPLIT_IRQCHIP), KVM_SET_SIGNAL_MASK
#include <csignal>
#include <ctime>

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "kvm/apic_state.h"
#include "kvm/kick_signal.h"
#include "kvm/lists.h"
#include "kvm/vcpu.h"

namespace caisson::kvm {
namespace {

using TimerMode = LocalApicState::TimerMode;

struct SignalMask {
  uint32_t length = 8;
  uint8_t set[8]{};  // none blocked
};

// Within its scope KVM_RUN finds a kick signal waiting, which has not interrupted anything else.
class PendingKick {
 public:
  explicit PendingKick(int vcpu_fd) : vcpu_fd_(vcpu_fd) {
    ::sigemptyset(&kick_);
    ::sigaddset(&kick_, kick_signal);
    ::pthread_sigmask(SIG_BLOCK, &kick_, &before_);
    SignalMask mask;
    (void)control(vcpu_fd_, set_signal_mask, &mask);
    ::syscall(SYS_tgkill, ::getpid(), ::gettid(), kick_signal);
  }
  ~PendingKick() {
    const timespec now{};
    while (::sigtimedwait(&kick_, nullptr, &now) > 0) {
    }
    (void)control(vcpu_fd_, set_signal_mask, nullptr);
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  PendingKick(const PendingKick&) = delete;
  PendingKick& operator=(const PendingKick&) = delete;

 private:
  const int vcpu_fd_;
  sigset_t kick_{}, before_{};
};

// Within its scope this thread stays on the processor that it is on.
class OneProcessor {
 public:
  OneProcessor() {
    known_ = ::sched_getaffinity(0, sizeof before_, &before_) == 0;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(::sched_getcpu()), &one);
    if (known_) ::sched_setaffinity(0, sizeof one, &one);
  }
  ~OneProcessor() {
    if (known_) ::sched_setaffinity(0, sizeof before_, &before_);
  }
  OneProcessor(const OneProcessor&) = delete;
  OneProcessor& operator=(const OneProcessor&) = delete;

 private:
  cpu_set_t before_{};
  bool known_ = false;
};

uint32_t mp_state_of(Activity activity) {
  switch (activity) {
    case Activity::Running: return KVM_MP_STATE_RUNNABLE;
    case Activity::Halted: return KVM_MP_STATE_HALTED;
    case Activity::WaitForSipi: return KVM_MP_STATE_INIT_RECEIVED;
  }
  return KVM_MP_STATE_RUNNABLE;
}

bool test(const std::array<uint32_t, 8>& bits, uint8_t n) { return (bits[n / 32] >> n % 32 & 1) != 0; }

}  // namespace

// The PIC's interrupt for the first CPU, once the guest and LINT0 let it in; the kernel exits as soon as they do.
void KvmVcpu::offer_ext_int() {
  if (run_->ready_for_interrupt_injection != 0 && model_->ext_int()) {
    if (const auto vector = model_->acknowledge_ext_int()) {
      kvm_interrupt interrupt{.irq = *vector};
      if (control(fd_.get(), KVM_INTERRUPT, &interrupt) != 0) log::error("/dev/kvm: interrupt {} is lost", *vector);
      run_->ready_for_interrupt_injection = 0;
    }
  }
  run_->request_interrupt_window = model_->ext_int();
}

KvmVcpu::Outcome KvmVcpu::touch() {
  for (unsigned i = 0; i < 100; ++i) {
    std::atomic_ref<uint8_t>(run_->immediate_exit).store(0);
    run_->request_interrupt_window = 0;
    int result;
    int error;
    {
      const PendingKick pending{fd_.get()};
      result = call(fd_.get(), KVM_RUN, 0);
      error = errno;
    }
    if (result == 0) {
      // It had something to tell first.
      Outcome outcome = handle_exit();
      if (outcome == Outcome::Again) outcome = complete_access();
      if (outcome >= Outcome::TripleFault) return outcome;
      continue;
    }
    if (error != EINTR && error != EAGAIN) return run_failed(error);
    // A stop that came meanwhile had it leave early.
    if (error == EINTR && std::atomic_ref<uint8_t>(run_->immediate_exit).load() == 0) return Outcome::Again;
  }
  return Outcome::Again;
}

// touch() brings the vCPU's timer to the processor that it runs on, but not that of a CPU that sleeps in HLT: such a
// one does not get far enough. So it is awake for that moment, in which it runs no instruction either.
KvmVcpu::Outcome KvmVcpu::touch_awake() {
  kvm_mp_state state{};
  const bool halted = control(fd_.get(), KVM_GET_MP_STATE, &state) == 0 && state.mp_state == KVM_MP_STATE_HALTED;
  kvm_mp_state awake{.mp_state = KVM_MP_STATE_RUNNABLE};
  if (!halted || control(fd_.get(), KVM_SET_MP_STATE, &awake) != 0) return touch();
  if (const Outcome outcome = touch(); outcome != Outcome::Again) return outcome;
  // An interrupt that has been accepted meanwhile has ended the HLT.
  kvm_vcpu_events events{};
  if (control(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0) return run_failed(errno);
  if (events.interrupt.injected != 0 || events.nmi.injected != 0) return Outcome::Again;
  return control(fd_.get(), KVM_SET_MP_STATE, &state) == 0 ? Outcome::Again : run_failed(errno);
}

// A one-shot count of 0 may be one whose timer the kernel has not come to yet. Timers of one processor run in their
// order: after a sleep on the processor to which the vCPU's timer was brought, that one has run.
KvmVcpu::Outcome KvmVcpu::wait_for_late_timer() {
  const OneProcessor here;
  const Outcome outcome = touch_awake();
  const timespec moment{.tv_sec = 0, .tv_nsec = 1};
  ::nanosleep(&moment, nullptr);
  return outcome;
}

KvmVcpu::Outcome KvmVcpu::settle_timer(bool& at_rest) {
  const Clock& clock = engine_.services().clock;
  LocalApicState before;
  auto done = get_apic(fd_.get(), clock, tsc_offset_, before);
  if (done) {
    if (before.timer_mode() == TimerMode::OneShot && before.initial_count != 0 && before.timer_deadline_ns == 0) {
      if (const Outcome outcome = wait_for_late_timer(); outcome != Outcome::Again) return outcome;
    }
    if (const Outcome outcome = touch(); outcome != Outcome::Again) return outcome;
    done = get_apic(fd_.get(), clock, tsc_offset_, apic_at_stop_);
  }
  if (!done) {
    error_ = done.error().message;
    return Outcome::Failed;
  }
  // A tick between the two readings may have come after touch(). One that came before is an interrupt now.
  const LocalApicState& after = apic_at_stop_;
  switch (after.timer_mode()) {
    case TimerMode::TscDeadline: at_rest = true; break;  // the kernel forgets the deadline when it makes the interrupt
    case TimerMode::Periodic:
      at_rest = before.timer_deadline_ns == 0 ||
                after.timer_deadline_ns < before.timer_deadline_ns + after.initial_count * after.timer_divisor() / 2;
      break;
    default: at_rest = before.timer_deadline_ns == 0 || after.timer_deadline_ns != 0; break;
  }
  return Outcome::Again;
}

// Here nothing tells whether a one-shot timer that has run down has made its interrupt: rather one too many.
void KvmVcpu::keep_timer_after_failure() {
  const Clock& clock = engine_.services().clock;
  if (!get_apic(fd_.get(), clock, tsc_offset_, apic_at_stop_)) return;
  LocalApicState& state = apic_at_stop_;
  if (state.timer_mode() == TimerMode::OneShot && state.initial_count != 0 && state.timer_deadline_ns == 0) {
    state.timer_deadline_ns = clock.now_ns();
  }
}

bool KvmVcpu::in_service(uint8_t vector) const {
  kvm_lapic_state page{};
  if (model_ == nullptr || control(fd_.get(), KVM_GET_LAPIC, &page) != 0) return false;
  return (page.regs[0x100 + vector / 32 * 16 + vector % 32 / 8] >> vector % 8 & 1) != 0;
}

void KvmVcpu::store_apic(CpuState& state) const {
  engine_.apics()->drain();
  kvm_mp_state mp{};
  if (control(fd_.get(), KVM_GET_MP_STATE, &mp) == 0) {
    state.activity = mp.mp_state == KVM_MP_STATE_RUNNABLE ? Activity::Running
                     : mp.mp_state == KVM_MP_STATE_HALTED ? Activity::Halted
                                                          : Activity::WaitForSipi;
  }
  LocalApicState apic = model_->state();
  if (auto done = get_apic(fd_.get(), engine_.services().clock, tsc_offset_, apic); !done) {
    log::error("CPU {}: {}", index_, done.error().message);
    return;
  }
  // The timer has gone on since: what counts is what it was, unless an INIT has stopped it.
  const LocalApicState& stopped = apic_at_stop_;
  if (apic.lvt[0] == stopped.lvt[0] && apic.divide_configuration == stopped.divide_configuration &&
      apic.initial_count == stopped.initial_count) {
    apic.timer_deadline_ns = stopped.timer_deadline_ns;
    apic.tsc_deadline = stopped.tsc_deadline;
  }
  apic.events = 0;
  kvm_vcpu_events events{};
  if (control(fd_.get(), KVM_GET_VCPU_EVENTS, &events) == 0) {
    if (events.nmi.pending != 0) apic.events |= LocalApicState::event_nmi;
    // Accepted, but no instruction of its handler has run: it waits again.
    const uint8_t vector = events.interrupt.nr;
    if (events.interrupt.injected != 0 && events.interrupt.soft == 0 && test(apic.isr, vector)) {
      apic.isr[vector / 32] &= ~(1u << vector % 32);
      apic.irr[vector / 32] |= 1u << vector % 32;
    }
  }
  model_->take(apic);
}

Result<> KvmVcpu::load_apic(Activity activity, bool nmi) {
  apic_at_stop_ = model_->state();
  if (auto done = set_apic(fd_.get(), index_, engine_.services().clock, tsc_offset_, apic_at_stop_); !done) return done;
  kvm_mp_state mp{.mp_state = mp_state_of(activity)};
  if (control(fd_.get(), KVM_SET_MP_STATE, &mp) != 0) return fail_errno(errno, "/dev/kvm: set a vCPU's activity");
  if (nmi && control(fd_.get(), KVM_NMI, 0) != 0) return fail_errno(errno, "/dev/kvm: inject an NMI");
  return {};
}

}  // namespace caisson::kvm
