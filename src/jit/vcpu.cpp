#include "jit/vcpu.h"

#include <sched.h>
#include <cerrno>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "jit/direct/direct.h"
#include "jit/fpu.h"
#include "jit/interpret/pvclock.h"
#include "jit/lockstep.h"
#include "jit/mmu/mirror.h"
#include "jit/mmu/mmu.h"
#include "jit/sampling.h"
#include "jit/translate/classify.h"
#include "jit/translate/translator.h"

namespace caisson::jit {
namespace {

long futex(std::atomic<uint32_t>& word, int operation, uint32_t value) {
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), operation | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr,
                 0);
}

// Waiting for a thread that will answer within microseconds, unless the host has taken its processor away.
class Patience {
 public:
  void wait() {
    if (++rounds_ < 200) {
      __builtin_ia32_pause();
    } else {
      sched_yield();
    }
  }

 private:
  unsigned rounds_ = 0;
};

// Between Cpu and CpuState, either way: what has the same name and type in both.
template <class From, class To>
void copy_same_members(const From& from, To& to) {
  to.gpr = from.gpr;
  to.rip = from.rip;
  to.rflags = from.rflags;
  to.cr0 = from.cr0;
  to.cr2 = from.cr2;
  to.cr3 = from.cr3;
  to.cr4 = from.cr4;
  to.efer = from.efer;
  to.xcr0 = from.xcr0;
  to.pdpte = from.pdpte;
  to.dr = from.dr;
  to.activity = from.activity;
  to.interrupt_shadow = from.interrupt_shadow;
  to.nmi_blocked = from.nmi_blocked;
  to.tsc_offset = from.tsc_offset;
  to.msrs = from.msrs;
}

}  // namespace

JitVcpu::JitVcpu(JitEngine& engine, unsigned index, CpuInterrupts& interrupts) : cpu_(new Cpu), engine_(engine) {
  Cpu& cpu = *cpu_;
  const EngineServices& services = engine.services();
  cpu.memory = &services.memory;
  cpu.bus = &services.bus;
  cpu.clock = &services.clock;
  cpu.model = &services.model;
  cpu.interrupts = &interrupts;
  cpu.engine = &engine;
  cpu.index = index;
  if (engine.options().profile) cpu.profile = &profile_;
  for (Tlb& tlb : cpu.tlb) {
    tlb.read_tag.fill(invalid_tag);
    tlb.write_tag.fill(invalid_tag);
  }
  for (JumpCache& cache : cpu.jumps) cache.drop(0);  // all other entries are empty as zeros
  mmu::drop_stack_pages(cpu);
  reset_cpu(cpu, false);
  cpu.alone = engine.options().lockstep;  // where vCPUs take turns
  if (index != 0) cpu.activity = Activity::WaitForSipi;
  if (engine.options().translate) translator_ = std::make_unique<Translator>(engine, cpu);
  if (translator_ && (engine.options().off & off::mirror) == 0 && Mirror::possible()) {
    constexpr unsigned patience = 8;
    mirror_ = std::make_unique<Mirror>(cpu, engine.options().off & off::patience ? 0 : patience);
    cpu.mirror = mirror_.get();
  }
  if (translator_ && (engine.options().off & off::direct) == 0) {
    constexpr unsigned patience = 4;
    direct_ = std::make_unique<Direct>(cpu, engine.options().off & off::patience ? 0 : patience);
    cpu.direct = direct_.get();
  }
  if (translator_ && engine.options().lockstep) lockstep_ = std::make_unique<Lockstep>(engine, cpu, *translator_);
}

JitVcpu::~JitVcpu() {
  if (lockstep_) {
    const Lockstep::Statistics& done = lockstep_->statistics();
    log::info("lock-step: CPU {}: {} blocks with {} instructions compared, {} not to their end, {} twice", cpu_->index,
              done.blocks, done.instructions, done.unchecked, done.again);
  }
  engine_.vcpu_gone(*this);
}

void JitVcpu::add_profile(Profile::Totals& totals) {
  profile_.settle(engine_.cache());
  profile_.add_to(totals, Sampling::tick);
}

void JitVcpu::kick() noexcept {
  cpu_->exit_request.store(1, std::memory_order_seq_cst);
  if (direct_) direct_->wake();
  if (sleeping_.load(std::memory_order_seq_cst)) futex(cpu_->exit_request, FUTEX_WAKE, 1);
}

void JitVcpu::stop() {
  stop_.store(true, std::memory_order_seq_cst);
  kick();
}

void JitVcpu::request(uint32_t requests) {
  requests_.fetch_or(requests, std::memory_order_seq_cst);
  kick();
}

void JitVcpu::await(uint32_t requests) {
  Patience patience;
  while (in_guest_.load(std::memory_order_seq_cst) && (requests_.load(std::memory_order_seq_cst) & requests) != 0) {
    patience.wait();
  }
}

void JitVcpu::await_out_of_guest() {
  Patience patience;
  while (in_guest_.load(std::memory_order_seq_cst)) patience.wait();
}

void JitVcpu::drop_jump_caches() {
  if (!cpu_->code_noted) return;
  cpu_->code_noted = false;
  for (JumpCache& cache : cpu_->jumps) cache.clear();
  cpu_->jump_memory.flush_all(false);
  cpu_->jump_memory.forget_physical();
}

void JitVcpu::answer_requests() {
  const uint32_t requests = requests_.exchange(0, std::memory_order_seq_cst);
  if (requests == 0) return;
  fpu_put_away(*cpu_);
  carry_out(requests);
}

// (A function of its own, since it may use vector registers: tools/check-vector-registers.)
[[gnu::noinline]] void JitVcpu::carry_out(uint32_t requests) {
  if (requests & drop_write_entries) {
    for (Tlb& tlb : cpu_->tlb) tlb.write_tag.fill(invalid_tag);
    mmu::drop_stack_pages(*cpu_);
  }
  if (requests & drop_jumps) drop_jump_caches();
  if ((requests & drop_mirrors) && cpu_->mirror != nullptr) cpu_->mirror->drop_all();
  if ((requests & drop_mirrors) && direct_) direct_->drop_all();
}

void JitVcpu::sleep() {
  const ProfileScope profiled(*cpu_, Doing::Idle);
  if (direct_) direct_->rest();
  sleeping_.store(true, std::memory_order_seq_cst);
  while (cpu_->exit_request.load(std::memory_order_seq_cst) == 0) futex(cpu_->exit_request, FUTEX_WAIT, 0);
  sleeping_.store(false, std::memory_order_seq_cst);
}

void JitVcpu::take_turn() {
  constexpr unsigned rounds = 1000;  // of the run loop, before others have their turn
  if (!my_turn_) {
    engine_.turns().take();
    my_turn_ = true;
  } else if (++turns_ % rounds == 0) {
    engine_.turns().pass();
  }
}

void JitVcpu::give_turn() {
  if (my_turn_) engine_.turns().give();
  my_turn_ = false;
}

ExitReason JitVcpu::differs() {
  give_turn();
  std::string text = lockstep_->difference();
  if (text.ends_with('\n')) text.pop_back();
  log::error("{}", text);
  error_ = fmt::format("lock-step: interpreter and translator differ in the block at {:x}; the report is above",
                       lockstep_->rip());
  return ExitReason::InternalError;
}

[[gnu::noinline]] ExitReason JitVcpu::lost_process() {
  error_ = "a process that ran the guest's user code was killed; start the machine again";
  return ExitReason::InternalError;
}

// Events and interrupts that can be taken now, most important first (SDM vol. 3, 6.9).
StepResult JitVcpu::take_interrupts() {
  Cpu& cpu = *cpu_;
  const ProfileScope profiled(cpu, Doing::Interrupts);
  const bool nmi_allowed = !cpu.nmi_blocked && cpu.interrupt_shadow == 0 && cpu.activity != Activity::WaitForSipi;
  while (const auto taken = cpu.interrupts->take_event(nmi_allowed)) {
    switch (taken->event) {
      case CpuInterrupts::Event::Init:
        reset_cpu(cpu, true);
        cpu.activity = cpu.index == 0 ? Activity::Running : Activity::WaitForSipi;
        continue;
      case CpuInterrupts::Event::Sipi:
        if (cpu.activity == Activity::WaitForSipi) {
          start_at_sipi(cpu, taken->sipi_vector);
          cpu.activity = Activity::Running;
        }
        continue;
      case CpuInterrupts::Event::Nmi: cpu.activity = Activity::Running; return deliver_interrupt(cpu, x86::Nmi);
    }
  }
  if ((cpu.rflags & x86::rflags::interrupt) == 0 || cpu.interrupt_shadow != 0 ||
      cpu.activity == Activity::WaitForSipi || !cpu.interrupts->interrupt_ready()) {
    return StepResult::Done;
  }
  const auto vector = cpu.interrupts->acknowledge();
  if (!vector) return StepResult::Done;
  cpu.activity = Activity::Running;
  if (cpu.user_64() && !(direct_ && direct_->interrupted()) && cpu.mirror != nullptr) cpu.mirror->interrupted();
  return deliver_interrupt(cpu, *vector);
}

ExitReason JitVcpu::run() {
  Cpu& cpu = *cpu_;
  if (translator_) translator_->enter_thread();
  if (direct_) direct_->enter_thread();
  const Sampling sampling(cpu);
  for (;;) {
    if (cpu.exit_request.load(std::memory_order_acquire) != 0) {
      cpu.exit_request.store(0, std::memory_order_seq_cst);
      if (stop_.exchange(false, std::memory_order_seq_cst)) {
        fpu_put_away(cpu);
        if (lockstep_) give_turn();
        return ExitReason::Stopped;
      }
      answer_requests();
      if (cpu.profile != nullptr && profile_.half_full()) {
        fpu_put_away(cpu);
        profile_.settle(engine_.cache());
      }
      look_at_interrupts_ = true;
    }
    if (lockstep_) take_turn();
    // Delivering an interrupt writes to the guest's memory as instructions do, so it counts as being in the guest.
    in_guest_.store(true, std::memory_order_seq_cst);
    if (engine_.gate_closed()) {
      in_guest_.store(false, std::memory_order_seq_cst);
      while (engine_.gate_closed()) sched_yield();
      continue;
    }
    StepResult result = StepResult::Done;
    bool sleeps = false;
    if (cpu.exit_request.load(std::memory_order_seq_cst) == 0) {
      if (look_at_interrupts_) {
        // A device model's code may use vector registers.
        fpu_put_away(cpu);
        look_at_interrupts_ = false;
        if (cpu.interrupts->pending()) result = take_interrupts();
        cpu.interrupts_waiting = cpu.interrupts->pending();
      }
      sleeps = result == StepResult::Done && cpu.activity != Activity::Running;
      if (result == StepResult::Done && !sleeps) result = run_guest();
    }
    in_guest_.store(false, std::memory_order_seq_cst);
    if (result == StepResult::NotAlone) result = step_alone();
    if (lockstep_ && !lockstep_->difference().empty()) return differs();
    if (direct_ && direct_->lost()) {
      fpu_put_away(cpu);
      return lost_process();
    }
    if (sleeps) {
      fpu_put_away(cpu);
      if (lockstep_) give_turn();
      sleep();
      continue;
    }
    if (result == StepResult::Shutdown) {
      fpu_put_away(cpu);
      if (lockstep_) give_turn();
      return ExitReason::TripleFault;
    }
  }
}

// What others ask for meanwhile they wait for: this vCPU counts as being in the guest.
StepResult JitVcpu::step_alone() {
  fpu_put_away(*cpu_);
  StepResult result = StepResult::Done;
  engine_.exclusive(*cpu_, [&] {
    in_guest_.store(true, std::memory_order_seq_cst);
    answer_requests();
    cpu_->alone = true;
    result = step(*cpu_);
    cpu_->alone = false;
    in_guest_.store(false, std::memory_order_seq_cst);
  });
  return result;
}

StepResult JitVcpu::interpret_one() {
  fpu_put_away(*cpu_);
  look_at_interrupts_ = true;
  const ProfileScope profiled(*cpu_, Doing::Interpret);
  if (cpu_->profile != nullptr) profile_.interpreted(*cpu_, cpu_->leave == static_cast<uint32_t>(Leave::Slow));
  return step(*cpu_);
}

StepResult JitVcpu::run_guest() {
  if (direct_ && cpu_->user_64() && direct_->likely()) {
    fpu_put_away(*cpu_);
    if (direct_->wanted()) {
      look_at_interrupts_ = true;
      return direct_->run();
    }
  }
  if (cpu_->mirror != nullptr && cpu_->user_64() && cpu_->mirror->wanted()) {
    fpu_put_away(*cpu_);
    cpu_->mirror->begin();
  }
  if (translator_ && translator_->translatable()) return run_translated();
  fpu_put_away(*cpu_);
  look_at_interrupts_ = true;
  const ProfileScope profiled(*cpu_, Doing::Interpret);
  return interpret_while([&](uint64_t) { return !translator_ || !translator_->translatable(); });
}

// Some instructions in a row while nothing happens that needs the run loop, and go_on(RIP of the last one).
template <class GoOn>
StepResult JitVcpu::interpret_while(GoOn go_on) {
  for (unsigned i = 0; i < 64; ++i) {
    const uint64_t rip = cpu_->rip;
    const StepResult result = step(*cpu_);
    if (result != StepResult::Done) return result;
    if (cpu_->exit_request.load(std::memory_order_relaxed) != 0 || cpu_->interrupts->pending()) break;
    if (!go_on(rip)) break;
  }
  return StepResult::Done;
}

// About a block's worth of instructions: up to a jump that is taken.
StepResult JitVcpu::interpret_block() {
  constexpr unsigned longest_instruction = 15;
  look_at_interrupts_ = true;
  const ProfileScope profiled(*cpu_, Doing::Interpret);
  return interpret_while(
      [&](uint64_t rip) { return cpu_->rip - rip <= longest_instruction && translator_->translatable(); });
}

StepResult JitVcpu::run_translated() {
  switch (lockstep_ ? lockstep_->run_block() : translator_->run()) {
    case Translator::Outcome::Dispatch: return StepResult::Done;
    case Translator::Outcome::Interpret:
      if (lockstep_ && !lockstep_->difference().empty()) return StepResult::Done;
      return interpret_one();
    case Translator::Outcome::NeedsTranslation:
      fpu_put_away(*cpu_);
      if (translator_->runs_seldom()) return interpret_block();
      break;
  }
  // Out of the guest while translating: other vCPUs need not wait for this one meanwhile.
  in_guest_.store(false, std::memory_order_seq_cst);
  const ProfileScope profiled(*cpu_, Doing::Translate);
  if (cpu_->profile != nullptr) {
    profile_.count(Profile::translations);
    if (profile_.half_full()) profile_.settle(engine_.cache());
  }
  if (!translator_->translate_current()) {
    engine_.exclusive(*cpu_, [&] {
      const std::lock_guard hold(engine_.cache().lock());
      engine_.cache().drop_all();
    });
    drop_jump_caches();
  }
  return StepResult::Done;
}

CpuState JitVcpu::store() const {
  const Cpu& cpu = *cpu_;
  CpuState state;
  const auto segment = [](const Segment& from) {
    return SegmentState{
        .base = from.base, .limit = from.limit, .attributes = from.attributes, .selector = from.selector};
  };
  copy_same_members(cpu, state);
  for (unsigned i = 0; i < 6; ++i) state.segments[i] = segment(cpu.segments[i]);
  state.ldtr = segment(cpu.ldtr);
  state.tr = segment(cpu.tr);
  state.gdtr = {.base = cpu.gdtr.base, .limit = cpu.gdtr.limit};
  state.idtr = {.base = cpu.idtr.base, .limit = cpu.idtr.limit};
  state.xsave.data.assign(cpu.xsave.begin(), cpu.xsave.end());
  return state;
}

Result<> JitVcpu::load(const CpuState& state) {
  if (state.xsave.data.size() > cpu_->xsave.size()) {
    return fail("CPU state has {} bytes of XSAVE state, this engine keeps {}", state.xsave.data.size(),
                cpu_->xsave.size());
  }
  Cpu& cpu = *cpu_;
  const auto segment = [](const SegmentState& from) {
    return Segment{.base = from.base, .limit = from.limit, .attributes = from.attributes, .selector = from.selector};
  };
  copy_same_members(state, cpu);
  cpu.rflags |= x86::rflags::fixed;
  for (unsigned i = 0; i < 6; ++i) cpu.segments[i] = segment(state.segments[i]);
  cpu.ldtr = segment(state.ldtr);
  cpu.tr = segment(state.tr);
  cpu.gdtr = {.base = state.gdtr.base, .limit = state.gdtr.limit};
  cpu.idtr = {.base = state.idtr.base, .limit = state.idtr.limit};
  fpu_init(cpu);
  std::copy(state.xsave.data.begin(), state.xsave.data.end(), cpu.xsave.begin());
  cpu.fault = {};
  update_mode(cpu);
  mmu::flush_all(cpu);
  update_system_time(cpu);  // what stands there was written by another engine, or another host's
  return {};
}

}  // namespace caisson::jit
