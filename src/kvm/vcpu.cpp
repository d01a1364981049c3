#include "kvm/vcpu.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "kvm/cpuid.h"
#include "kvm/interrupter.h"
#include "kvm/msr_filter.h"

namespace caisson::kvm {
namespace {

long futex(std::atomic<uint32_t>& word, int operation, uint32_t value) {
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), operation | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr,
                 0);
}

// Other threads and the kernel see it at once.
void set_immediate_exit(kvm_run& run, uint8_t value) {
  std::atomic_ref<uint8_t>(run.immediate_exit).store(value, std::memory_order_seq_cst);
}

bool wants_immediate_exit(kvm_run& run) { return std::atomic_ref<uint8_t>(run.immediate_exit).load() != 0; }

// How long settle() enters the guest for, at first and at most, and how often before it gives up.
constexpr uint64_t settle_ns = 100'000, settle_longest_ns = 10'000'000;
constexpr unsigned settle_limit = 100;

}  // namespace

Result<std::unique_ptr<Vcpu>> KvmVcpu::create(KvmEngine& engine, unsigned index, CpuInterrupts& interrupts,
                                              const std::vector<kvm_cpuid_entry2>& cpuid) {
  install_kick_signal();
  CAISSON_CHECK(engine.apics() == nullptr || interrupts.model() != nullptr);
  std::unique_ptr<KvmVcpu> vcpu{new KvmVcpu{engine, index, interrupts}};
  vcpu->fd_ = Fd{control(engine.vm_fd(), KVM_CREATE_VCPU, static_cast<unsigned long>(index))};
  if (!vcpu->fd_.valid()) return fail_errno(errno, fmt::format("/dev/kvm: create CPU {}; use fewer --cpus", index));
  auto run = SharedRun::create(vcpu->fd_.get(), engine.device().run_size());
  if (!run) return std::unexpected(run.error());
  vcpu->run_ = std::move(*run);
  if (auto done = engine.write_log().add_vcpu(vcpu->fd_.get()); !done) return std::unexpected(done.error());
  if (auto done = set_cpuid(vcpu->fd_.get(), cpuid); !done) return std::unexpected(done.error());
  std::vector<SlotMsr> kernels;
  std::ranges::copy_if(slot_msrs(), std::back_inserter(kernels),
                       [](const SlotMsr& row) { return !own_msr(row.number); });
  vcpu->held_ = known_msrs(vcpu->fd_.get(), kernels);
  CpuState state = power_on_state(engine.services().model);
  if (index != 0) state.activity = Activity::WaitForSipi;
  if (auto done = vcpu->load(state); !done) return std::unexpected(done.error());
  return vcpu;
}

void KvmVcpu::kick() noexcept {
  exit_request_.store(1, std::memory_order_seq_cst);
  set_immediate_exit(*run_, 1);
  if (in_guest_.load(std::memory_order_seq_cst)) {
    ::syscall(SYS_tgkill, ::getpid(), thread_.load(std::memory_order_relaxed), kick_signal);
  }
  if (sleeping_.load(std::memory_order_seq_cst)) futex(exit_request_, FUTEX_WAKE, 1);
}

void KvmVcpu::stop() {
  stop_.store(true, std::memory_order_seq_cst);
  kick();
}

void KvmVcpu::sleep() {
  sleeping_.store(true, std::memory_order_seq_cst);
  while (exit_request_.load(std::memory_order_seq_cst) == 0) futex(exit_request_, FUTEX_WAIT, 0);
  sleeping_.store(false, std::memory_order_seq_cst);
}

ExitReason KvmVcpu::run() {
  thread_.store(::gettid(), std::memory_order_relaxed);
  for (;;) {
    // A kick that comes after this is seen by enter(): it looks at exit_request_ once more.
    set_immediate_exit(*run_, 0);
    Outcome outcome = Outcome::Again;
    if (exit_request_.load(std::memory_order_seq_cst) != 0) {
      exit_request_.store(0, std::memory_order_seq_cst);
      if (stop_.exchange(false, std::memory_order_seq_cst)) {
        outcome = complete_access();
        if (outcome == Outcome::Again) outcome = settle();
        if (outcome == Outcome::Again) return ExitReason::Stopped;
      }
    }
    if (outcome == Outcome::Again && model_ == nullptr && interrupts_.pending()) outcome = take_events();
    if (outcome == Outcome::Again) {
      if (model_ != nullptr) {
        offer_ext_int();
      } else if (!awake()) {
        sleep();
        continue;
      } else {
        offer_interrupt();
      }
      outcome = enter();
    }
    if (outcome == Outcome::TripleFault) return ExitReason::TripleFault;
    if (outcome == Outcome::Debug) return ExitReason::Debug;
    if (outcome == Outcome::Failed) {
      if (model_ != nullptr) keep_timer_after_failure();
      return ExitReason::InternalError;
    }
  }
}

// Whether the CPU runs, or what waits ends its HLT.
bool KvmVcpu::awake() {
  if (activity_ == Activity::Running) return true;
  if (activity_ == Activity::WaitForSipi || run_->if_flag == 0 || !interrupts_.interrupt_ready()) return false;
  activity_ = Activity::Running;
  return true;
}

KvmVcpu::Outcome KvmVcpu::take_events() {
  while (const auto taken = interrupts_.take_event(activity_ != Activity::WaitForSipi)) {
    switch (taken->event) {
      case CpuInterrupts::Event::Init:
        if (const Outcome outcome = take_init(); outcome != Outcome::Again) return outcome;
        break;
      case CpuInterrupts::Event::Sipi: {
        if (activity_ != Activity::WaitForSipi) break;
        CpuState state = store();
        start_at(state, taken->sipi_vector);
        if (auto done = load(state); !done) {
          error_ = done.error().message;
          return Outcome::Failed;
        }
        break;
      }
      case CpuInterrupts::Event::Nmi:
        activity_ = Activity::Running;
        if (control(fd_.get(), KVM_NMI, 0) != 0) {
          error_ = fail_errno(errno, "/dev/kvm: inject an NMI").error().message;
          return Outcome::Failed;
        }
        break;
    }
  }
  return Outcome::Again;
}

KvmVcpu::Outcome KvmVcpu::take_init() {
  if (const Outcome outcome = complete_access(); outcome != Outcome::Again) return outcome;
  CpuState state = init_state(store(), engine_.services().model);
  if (index_ != 0) state.activity = Activity::WaitForSipi;
  if (auto done = load(state); !done) {
    error_ = done.error().message;
    return Outcome::Failed;
  }
  return Outcome::Again;
}

// Gives the kernel an interrupt where the guest can take one at once, else has it exit as soon as the guest can.
void KvmVcpu::offer_interrupt() {
  if (run_->ready_for_interrupt_injection != 0 && run_->if_flag != 0 && interrupts_.interrupt_ready()) {
    if (const auto vector = interrupts_.acknowledge()) {
      kvm_interrupt interrupt{.irq = *vector};
      if (control(fd_.get(), KVM_INTERRUPT, &interrupt) != 0) log::error("/dev/kvm: interrupt {} is lost", *vector);
      run_->ready_for_interrupt_injection = 0;
    }
  }
  run_->request_interrupt_window = interrupts_.interrupt_ready();
}

KvmVcpu::Outcome KvmVcpu::enter() {
  if (model_ == nullptr) run_->cr8 = interrupts_.cr8();
  in_guest_.store(true, std::memory_order_seq_cst);
  if (exit_request_.load(std::memory_order_seq_cst) != 0 && !wants_immediate_exit(*run_)) {
    in_guest_.store(false, std::memory_order_seq_cst);
    return Outcome::Interrupted;
  }
  const int result = call(fd_.get(), KVM_RUN, 0);
  const int error = errno;
  in_guest_.store(false, std::memory_order_seq_cst);
  if (const auto cr8 = static_cast<uint8_t>(run_->cr8); model_ == nullptr && cr8 != interrupts_.cr8()) {
    interrupts_.set_cr8(cr8);
  }
  if (result < 0) {
    if (error == EINTR || error == EAGAIN) {
      access_open_ = false;
      return Outcome::Interrupted;
    }
    return run_failed(error);
  }
  return handle_exit();
}

KvmVcpu::Outcome KvmVcpu::run_failed(int error) {
  error_ =
      fmt::format("{}; {}; use --engine jit", fail_errno(error, "/dev/kvm: run the guest").error().message, describe());
  return Outcome::Failed;
}

KvmVcpu::Outcome KvmVcpu::complete_access() {
  while (access_open_) {
    // The kernel takes the data of the last exit, and leaves before the guest runs.
    set_immediate_exit(*run_, 1);
    const Outcome outcome = enter();
    set_immediate_exit(*run_, 0);
    if (outcome >= Outcome::TripleFault) return outcome;
  }
  return Outcome::Again;
}

// Entering the guest delivers the event; a timer ends that. Not by single steps: the flags that the event pushes would
// have TF set.
KvmVcpu::Outcome KvmVcpu::settle() {
  uint64_t time = settle_ns;
  for (unsigned i = 0; i < settle_limit; ++i) {
    bool at_rest = true;
    if (model_ != nullptr) {
      if (const Outcome outcome = settle_timer(at_rest); outcome != Outcome::Again) return outcome;
    }
    kvm_vcpu_events events{};
    if (control(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0) break;
    const bool nmi = events.nmi.injected != 0 || (events.nmi.pending != 0 && events.nmi.masked == 0);
    // What the kernel's local APIC gave goes back into it; see store_apic().
    const bool interrupt = events.interrupt.injected != 0 && !in_service(events.interrupt.nr);
    if (!interrupt && events.exception.injected == 0 && !nmi) {
      if (at_rest) return Outcome::Again;
      continue;
    }
    const Interrupter interrupter;
    if (!interrupter.made()) break;
    interrupter.arm(time);
    // Where the host is so slow that it does not come to the guest in that time.
    time = std::min(2 * time, settle_longest_ns);
    set_immediate_exit(*run_, 0);
    exit_request_.store(0, std::memory_order_seq_cst);
    run_->request_interrupt_window = 0;
    Outcome outcome = enter();
    if (outcome == Outcome::Again) outcome = complete_access();
    // run() shall look for a stop that came meanwhile.
    exit_request_.store(1, std::memory_order_seq_cst);
    if (outcome >= Outcome::TripleFault) return outcome;
  }
  error_ = "/dev/kvm: an event cannot be delivered; " + describe() + "; use --engine jit";
  return Outcome::Failed;
}

KvmVcpu::Outcome KvmVcpu::handle_exit() {
  access_open_ = false;
  switch (run_->exit_reason) {
    case KVM_EXIT_IO: handle_io(); return Outcome::Again;
    case KVM_EXIT_MMIO: handle_mmio(); return Outcome::Again;
    case KVM_EXIT_X86_RDMSR: {
      access_open_ = true;
      uint64_t value = 0;
      run_->msr.error = read_msr(run_->msr.index, value) ? 0 : 1;
      run_->msr.data = value;
      return Outcome::Again;
    }
    case KVM_EXIT_X86_WRMSR:
      access_open_ = true;
      run_->msr.error = write_msr(run_->msr.index, run_->msr.data) ? 0 : 1;
      return Outcome::Again;
    case KVM_EXIT_IOAPIC_EOI: model_->broadcast_eoi(run_->eoi.vector); return Outcome::Again;
    case KVM_EXIT_HLT: activity_ = Activity::Halted; return Outcome::Again;
    case KVM_EXIT_DIRTY_RING_FULL:
      if (engine_.write_log().ring_full()) return Outcome::Again;
      error_ = "/dev/kvm: the dirty ring is full, but nothing can be taken out of it; use --engine jit";
      return Outcome::Failed;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_INTR: return Outcome::Again;
    case KVM_EXIT_SHUTDOWN: return Outcome::TripleFault;
    case KVM_EXIT_DEBUG: return Outcome::Debug;
    case KVM_EXIT_FAIL_ENTRY:
      error_ = fmt::format("/dev/kvm: the processor refuses the guest's state ({:#x}); {}; use --engine jit",
                           uint64_t{run_->fail_entry.hardware_entry_failure_reason}, describe());
      return Outcome::Failed;
    case KVM_EXIT_INTERNAL_ERROR:
      error_ = run_->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
                   ? fmt::format("/dev/kvm: cannot run this instruction; {}; use --engine jit", describe())
                   : fmt::format("/dev/kvm: internal error {}; {}; use --engine jit", uint32_t{run_->internal.suberror},
                                 describe());
      return Outcome::Failed;
    default:
      error_ =
          fmt::format("/dev/kvm: unexpected exit {}; {}; use --engine jit", uint32_t{run_->exit_reason}, describe());
      return Outcome::Failed;
  }
}

Result<> KvmVcpu::set_debug_stops(const DebugStops& stops) {
  constexpr size_t most = 4;
  if (stops.breakpoints.size() > most) {
    return fail("{} breakpoints: this engine has {}, the processor's", stops.breakpoints.size(), most);
  }
  kvm_guest_debug debug{};
  if (stops.single_step) debug.control |= KVM_GUESTDBG_SINGLESTEP;
  if (!stops.breakpoints.empty()) debug.control |= KVM_GUESTDBG_USE_HW_BP;
  if (debug.control != 0) debug.control |= KVM_GUESTDBG_ENABLE;
  // DR7 (SDM vol. 3, 17.2.4): an instruction breakpoint has R/W and LEN 0.
  debug.arch.debugreg[7] = 0x400;
  for (size_t i = 0; i < stops.breakpoints.size(); ++i) {
    debug.arch.debugreg[i] = stops.breakpoints[i];
    debug.arch.debugreg[7] |= uint64_t{2} << (2 * i);
  }
  if (control(fd_.get(), KVM_SET_GUEST_DEBUG, &debug) == 0) return {};
  return fail_errno(errno, "/dev/kvm: stop for a debugger; use --engine jit");
}

CpuState KvmVcpu::store() const {
  CpuState state;
  state.msrs = msrs_;
  state.activity = activity_;
  // First: what it has to say about INIT and SIPI changes the rest.
  if (model_ != nullptr) store_apic(state);
  if (auto done = get_state(fd_.get(), engine_.abilities(), held_, state); !done) {
    log::error("CPU {}: {}", index_, done.error().message);
  }
  state.tsc_offset = tsc_offset_;
  return state;
}

Result<> KvmVcpu::load(const CpuState& given) {
  const CpuState* state = &given;
  CpuState changed;
  bool nmi = false;
  if (model_ != nullptr) {
    // The kernel's local APIC has no place for these.
    while (const auto taken = interrupts_.take_event(true)) {
      if (taken->event == CpuInterrupts::Event::Nmi) {
        nmi = true;
        continue;
      }
      changed = *state;
      state = &changed;
      if (taken->event == CpuInterrupts::Event::Init) {
        changed = init_state(changed, engine_.services().model);
        if (index_ != 0) changed.activity = Activity::WaitForSipi;
      } else if (changed.activity == Activity::WaitForSipi) {
        start_at(changed, taken->sipi_vector);
      }
    }
  }
  if (auto done = set_state(fd_.get(), engine_.abilities(), held_, interrupts_, *state); !done) {
    return with_context(fmt::format("CPU {}", index_), done.error());
  }
  msrs_ = state->msrs;
  activity_ = state->activity;
  if (!set_tsc_offset(state->tsc_offset)) return fail("CPU {}: /dev/kvm: set the time stamp counter", index_);
  if (model_ != nullptr) {
    if (auto done = load_apic(activity_, nmi); !done) return with_context(fmt::format("CPU {}", index_), done.error());
  }
  // What the kernel said at the last exit was of the old state.
  run_->ready_for_interrupt_injection = 0;
  run_->if_flag = (state->rflags & x86::rflags::interrupt) != 0;
  access_open_ = false;
  return {};
}

}  // namespace caisson::kvm
