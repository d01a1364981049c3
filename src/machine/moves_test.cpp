// A machine of two CPUs with its interrupt controllers moves from engine to engine, at any moment and while interrupts
// of every kind are under way: none is lost, none comes twice.
#include <chrono>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "base/event_loop.h"
#include "devices/chipset/attach.h"
#include "jit/engine.h"
#include "kvm/engine.h"
#include "kvm/probe.h"
#include "machine/machine_clock.h"
#include "x86/registers.h"

// Each CPU waits in turn for an interrupt that it has caused and counts in memory: one too few or too many, and it
// waits for ever. RDI: local APIC; RSI: IOAPIC; R8: the counts; R9: a sum of the work done; R10: a tenth of a
// millisecond in TSC ticks, or 0: no deadlines; R12: rounds. First CPU: an IPI to the second, a level interrupt by the
// IOAPIC, an MSI, one by the PIC. Second CPU: one-shot timers and deadlines.
asm(R"(
        .pushsection .rodata
        .globl  moves_first, moves_second, moves_ipi, moves_level, moves_msi, moves_pic, moves_timer, moves_end
        .macro  work
        mov     %r9, %rax
        rol     $13, %rax
        imul    $0x5bd1e995, %rax, %rax
        xor     %rbx, %rax
        add     %rax, %r9
        .endm
        .macro  wait_halted count
881:    cli
        cmp     %ebx, \count(%r8)
        je      882f
        sti
        hlt
        jmp     881b
882:    sti
        .endm
        .macro  wait_spinning count
881:    pause
        cmp     %ebx, \count(%r8)
        jne     881b
        .endm
        .macro  outb port, value
        mov     $\value, %al
        out     %al, $\port
        .endm
        // What is asked for with a number is answered with it; an answer that was given already is one too many.
        .macro  ask count
        mov     %ebx, 0x40 + \count(%r8)
        .endm
        .macro  answer count, extra
        push    %rax
        mov     0x40 + \count(%r8), %eax
        cmp     %eax, \count(%r8)
        jne     883f
        incl    \extra(%r8)
883:    mov     %eax, \count(%r8)
        pop     %rax
        .endm
        .balign 4096
moves_first:
        outb    0x20, 0x11
        outb    0x21, 0x30
        outb    0x21, 0x04
        outb    0x21, 0x01
        outb    0xa0, 0x11
        outb    0xa1, 0x38
        outb    0xa1, 0x02
        outb    0xa1, 0x01
        outb    0xa1, 0xff
        outb    0x21, 0xdf
        movl    $0x31, (%rsi)
        movl    $0, 0x10(%rsi)
        movl    $0x30, (%rsi)
        movl    $0x8050, 0x10(%rsi)
        xor     %ebx, %ebx
        sti
1:      inc     %ebx
        work
        ask     0x00
        movl    $0x01000000, 0x310(%rdi)
        movl    $0x4041, 0x300(%rdi)
        wait_spinning 0x00
        ask     0x08
        mov     $0x100, %edx
        out     %al, %dx
        wait_halted 0x08
        work
        ask     0x10
        mov     $0x101, %edx
        out     %al, %dx
        wait_spinning 0x10
        ask     0x18
        mov     $0x102, %edx
        out     %al, %dx
        wait_halted 0x18
        cmp     %r12d, %ebx
        jb      1b
2:      pause
        cmpl    $0, 0x28(%r8)
        je      2b
        mov     $0x10f, %edx
        out     %al, %dx
3:      jmp     3b

        .balign 1024
moves_second:
        movl    $0xb, 0x3e0(%rdi)
        xor     %ebx, %ebx
        sti
1:      inc     %ebx
        work
        ask     0x20
        test    %r10, %r10
        jz      2f
        test    $1, %bl
        jz      2f
        movl    $0x40060, 0x320(%rdi)
        rdtsc
        shl     $32, %rdx
        add     %rdx, %rax
        add     %r10, %rax
        mov     %rax, %rdx
        shr     $32, %rdx
        mov     $0x6e0, %ecx
        wrmsr
        jmp     3f
2:      movl    $0x60, 0x320(%rdi)
        movl    $100000, 0x380(%rdi)
3:      wait_halted 0x20
        cmp     %r12d, %ebx
        jb      1b
        movl    $1, 0x28(%r8)
4:      sti
        hlt
        jmp     4b

        .balign 64
moves_ipi:
        answer  0x00, 0x68
        movl    $0, 0xb0(%rdi)
        iretq
        .balign 64
moves_level:
        push    %rax
        push    %rdx
        mov     $0x100, %edx
        in      %dx, %al
        test    %al, %al
        jz      1f
        answer  0x08, 0x6c
1:      pop     %rdx
        pop     %rax
        movl    $0, 0xb0(%rdi)
        iretq
        .balign 64
moves_msi:
        answer  0x10, 0x6c
        movl    $0, 0xb0(%rdi)
        iretq
        .balign 64
moves_pic:
        push    %rax
        push    %rdx
        mov     $0x102, %edx
        in      %dx, %al
        mov     $0x20, %al
        out     %al, $0x20
        pop     %rdx
        pop     %rax
        answer  0x18, 0x6c
        iretq
        .balign 64
moves_timer:
        answer  0x20, 0x68
        movl    $0, 0xb0(%rdi)
        iretq
moves_end:
        .popsection
)");
extern "C" const uint8_t moves_first[], moves_second[], moves_ipi[], moves_level[], moves_msi[], moves_pic[],
    moves_timer[], moves_end[];

namespace caisson::machine {
namespace {

using namespace x86;

class NoSerial final : public CharSink {
 public:
  size_t write(std::span<const uint8_t> bytes) override { return bytes.size(); }
};

class NoPower final : public PowerSink {
 public:
  void request(PowerEvent, uint8_t) override {}
};

// Raises what the first CPU waits for; a write to its last port stops the machine.
class Source final : public Device {
 public:
  std::string_view name() const override { return "source"; }
  // Whether the line was up: a level interrupt that is told to have ended too early comes again.
  uint64_t read(unsigned, uint64_t offset, unsigned) override {
    line(offset).set(false);
    return std::exchange(up_[offset == 0], false);
  }
  void write(unsigned, uint64_t offset, unsigned, uint64_t) override {
    if (offset == 0xf) {
      ended = true;
      for (const auto& cpu : *cpus) cpu->stop();
    } else if (offset == 1) {
      chipset->msi().send_msi(0xfee0'0000, 0x51);
    } else {
      up_[offset == 0] = true;
      line(offset).set(true);
    }
  }
  void reset() override {
    ended = false;
    up_ = {};
  }
  void save(fields::Buffer&) const override {}
  Result<> restore(std::span<const uint8_t>) override { return {}; }

  Chipset* chipset = nullptr;
  std::vector<std::unique_ptr<Vcpu>>* cpus = nullptr;
  std::atomic<bool> ended{false};

 private:
  std::array<bool, 2> up_{};
  InterruptLine& line(uint64_t offset) { return chipset->router().line(offset == 0 ? 16 : 5); }
};

class Moves : public testing::TestWithParam<bool> {
 protected:
  static constexpr unsigned cpu_count = 2, rounds = 30, most_moves = 100;
  static constexpr uint64_t page_tables = 0x1000, gdt = 0x8000, idt = 0x9000, code = 0x20000, stacks = 0x50000,
                            data = 0x60000;
  using Clock = std::chrono::steady_clock;

  void SetUp() override {
    auto opened = kvm::open_device();
    if (!opened) GTEST_SKIP() << opened.error().message;
    // Where ring 0 is emulated its TSC is the host's, whatever the machine's is.
    deadlines_ = kvm::examine(*opened).use;
    memory_ = *GuestMemory::create(uint64_t{16} << 20);
    loop_ = *EventLoop::create(&bus_.lock());
    clock_ = std::make_unique<MachineClock>(*loop_, host_tsc_hz({}));
    auto model = CpuModel::create("x86-64-v2", cpu_count, clock_->tsc_hz());
    ASSERT_TRUE(model) << model.error().message;
    model_ = std::make_unique<CpuModel>(std::move(*model));
    chipset_ = *Chipset::create(bus_, *clock_, power_, serial_, {.cpus = cpu_count});
    bus_.map(Space::Port, 0x100, 0x10, source_, 0);
    source_.chipset = chipset_.get();
    const EngineServices services{*memory_, bus_, *clock_, *model_, loop_.get()};
    auto jit = jit::JitEngine::create(services, {});
    ASSERT_TRUE(jit) << jit.error().message;
    jit_ = std::move(*jit);
    auto kvm = kvm::KvmEngine::create(services, std::move(*opened), {.kernel_apics = GetParam()});
    if (!kvm) GTEST_SKIP() << kvm.error().message;
    kvm_ = std::move(*kvm);
    if (GetParam() && kvm_->apics() == nullptr) GTEST_SKIP() << kvm_->apics_missing();
    for (unsigned i = 0; i < cpu_count; ++i) {
      jit_cpus_.push_back(*jit_->create_vcpu(i, chipset_->local_apic(i)));
      auto cpu = kvm_->create_vcpu(i, chipset_->local_apic(i));
      if (!cpu) GTEST_SKIP() << cpu.error().message;
      kvm_cpus_.push_back(std::move(*cpu));
      reset_.push_back(jit_cpus_.back()->store());
    }
    loop_thread_ = std::thread{[this] { loop_->run(); }};
  }

  void TearDown() override {
    if (loop_thread_.joinable()) {
      loop_->stop();
      loop_thread_.join();
    }
    const std::lock_guard hold(bus_.lock());
    if (chipset_) chipset_->apic_bus().set_keeper(nullptr);
    jit_cpus_.clear();
    kvm_cpus_.clear();
    jit_.reset();
    kvm_.reset();
    chipset_.reset();
  }

  template <class T>
  void put(uint64_t address, T value) {
    ASSERT_TRUE(memory_->write_object(address, value));
  }
  uint32_t count(uint64_t offset) {
    uint32_t value = 0;
    EXPECT_TRUE(memory_->read_object(data + offset, value));
    return value;
  }

  CpuState start_state(unsigned index) {
    CpuState state = reset_[index];
    state.gpr = {};
    state.gpr[Rdi] = 0xfee0'0000;
    state.gpr[Rsi] = 0xfec0'0000;
    state.gpr[R8] = data;
    state.gpr[R9] = index + 1;
    state.gpr[R10] = deadlines_ ? clock_->tsc_hz() / 10'000 : 0;
    state.gpr[R12] = rounds;
    state.gpr[Rsp] = stacks + 0x1000 * (index + 1);
    state.rip = code + static_cast<uint64_t>((index == 0 ? moves_first : moves_second) - moves_first);
    state.activity = Activity::Running;
    state.rflags = rflags::fixed;
    state.gdtr = {.base = gdt, .limit = 0x17};
    state.idtr = {.base = idt, .limit = 0xfff};
    state.tr = {.base = 0xb000, .limit = 0x67, .attributes = 0x8b, .selector = 0x28};
    state.ldtr = {.base = 0, .limit = 0, .attributes = 1u << 16, .selector = 0};
    for (SegmentState& segment : state.segments) {
      segment = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xc093, .selector = 16};
    }
    state.segments[Cs] = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xa09b, .selector = 8};
    state.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::pg;
    state.cr3 = page_tables;
    state.cr4 = cr4::pae | cr4::osfxsr;
    state.efer = efer::lme | efer::lma;
    return state;
  }

  // Memory, devices and CPUs as at the payload's start.
  void start(bool on_kvm) {
    ASSERT_TRUE(memory_->clear());
    put<uint64_t>(page_tables, (page_tables + 0x1000) | 3);
    put<uint64_t>(page_tables + 0x1000, (page_tables + 0x2000) | 3);
    put<uint64_t>(page_tables + 0x1018, (page_tables + 0x3000) | 3);
    for (uint64_t i = 0; i < 512; ++i) {
      put<uint64_t>(page_tables + 0x2000 + 8 * i, i << 21 | 0xe3);
      put<uint64_t>(page_tables + 0x3000 + 8 * i, 0xc000'00e3 + (i << 21));
    }
    put<uint64_t>(gdt + 8, 0x00af'9b00'0000'ffff);
    put<uint64_t>(gdt + 16, 0x00cf'9300'0000'ffff);
    const std::pair<unsigned, const uint8_t*> handlers[] = {
        {0x41, moves_ipi}, {0x50, moves_level}, {0x51, moves_msi}, {0x35, moves_pic}, {0x60, moves_timer}};
    for (const auto& [vector, handler] : handlers) {
      const uint64_t at = code + static_cast<uint64_t>(handler - moves_first);
      put<uint64_t>(idt + 16 * vector, (at & 0xffff) | uint64_t{8} << 16 | uint64_t{0x8e00} << 32 | (at >> 16) << 48);
    }
    ASSERT_TRUE(memory_->write(code, {moves_first, moves_end}));
    const std::lock_guard hold(bus_.lock());
    source_.reset();
    chipset_->reset();
    // The first CPU sends before the second one has come to its first instruction.
    for (unsigned i = 0; i < cpu_count; ++i) chipset_->local_apic(i).write_register(0xf0, 0x1ff);
    std::vector<CpuState> states;
    for (unsigned i = 0; i < cpu_count; ++i) states.push_back(start_state(i));
    load(on_kvm, states);
  }

  // Device lock held, no CPU runs.
  void load(bool on_kvm, const std::vector<CpuState>& states) {
    on_kvm_ = on_kvm;
    source_.cpus = &cpus();
    for (unsigned i = 0; i < cpu_count; ++i) chipset_->local_apic(i).connect(*cpus()[i]);
    chipset_->apic_bus().set_keeper(on_kvm ? kvm_->apics() : nullptr);
    jit_->memory_replaced();
    for (unsigned i = 0; i < cpu_count; ++i) {
      const auto loaded = cpus()[i]->load(states[i]);
      ASSERT_TRUE(loaded) << loaded.error().message;
    }
  }

  void move() {
    const std::lock_guard hold(bus_.lock());
    std::vector<CpuState> states;
    for (const auto& cpu : cpus()) states.push_back(cpu->store());
    load(!on_kvm_, states);
    ++moves_;
  }

  std::vector<std::unique_ptr<Vcpu>>& cpus() { return on_kvm_ ? kvm_cpus_ : jit_cpus_; }

  // Runs the CPUs until the payload ends, or for about that time.
  void run(std::chrono::microseconds time) {
    std::vector<std::thread> threads;
    std::atomic<unsigned> failed{0};
    std::atomic<bool> over{false};
    for (const auto& cpu : cpus()) {
      threads.emplace_back([&, this] {
        // A stop that came after the end of the last run ends this one at once.
        do {
          if (cpu->run() != ExitReason::Stopped) ++failed;
        } while (!over && failed == 0 && !source_.ended);
      });
    }
    const auto until = Clock::now() + time;
    while (!source_.ended && failed == 0 && Clock::now() < until) {
      std::this_thread::sleep_for(std::min(time, std::chrono::microseconds{500}));
    }
    over = true;
    for (const auto& cpu : cpus()) cpu->stop();
    for (auto& thread : threads) thread.join();
    for (const auto& cpu : cpus()) ASSERT_EQ(failed, 0u) << cpu->error();
  }

  void expect_end() {
    EXPECT_TRUE(source_.ended) << "it waits for ever on " << (on_kvm_ ? "kvm" : "jit") << where();
    for (const uint64_t offset : {0x00, 0x08, 0x10, 0x18, 0x20}) EXPECT_EQ(count(offset), rounds) << "at " << offset;
    EXPECT_EQ(count(0x68) + count(0x6c), 0u) << "came twice";
    EXPECT_EQ(cpus()[0]->store().gpr[R9], sum(1, 2));
    EXPECT_EQ(cpus()[1]->store().gpr[R9], sum(2, 1));
  }

  // For a failure: where the CPUs are, and what waits for them.
  std::string where() {
    std::string text;
    for (unsigned i = 0; i < cpu_count; ++i) {
      const CpuState state = cpus()[i]->store();
      const LocalApicState apic = chipset_->local_apic(i).state();
      text +=
          fmt::format("; CPU {}: rip {:#x} rflags {:#x} activity {} lvt {:#x} count {} deadline {} now {} tsc {} irr",
                      i, state.rip, state.rflags, static_cast<int>(state.activity), apic.lvt[0], apic.initial_count,
                      apic.timer_deadline_ns, clock_->now_ns(), apic.tsc_deadline);
      for (unsigned n = 0; n < 8; ++n) text += fmt::format(" {:x}/{:x}", apic.irr[n], apic.isr[n]);
    }
    return text;
  }

  // What R9 comes to.
  static uint64_t sum(uint64_t value, unsigned times) {
    for (uint64_t round = 1; round <= rounds; ++round) {
      for (unsigned i = 0; i < times; ++i) value += (std::rotl(value, 13) * 0x5bd1'e995) ^ round;
    }
    return value;
  }

  Bus bus_;
  NoSerial serial_;
  NoPower power_;
  Source source_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<MachineClock> clock_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<CpuModel> model_;
  std::unique_ptr<Chipset> chipset_;
  std::unique_ptr<jit::JitEngine> jit_;
  std::unique_ptr<kvm::KvmEngine> kvm_;
  std::vector<std::unique_ptr<Vcpu>> jit_cpus_, kvm_cpus_;
  std::vector<CpuState> reset_;
  std::thread loop_thread_;
  bool deadlines_ = true;
  bool on_kvm_ = false;
  unsigned moves_ = 0;
  std::mt19937 random_{1};
};

TEST_P(Moves, EachEngineAlone) {
  for (const bool on_kvm : {false, true}) {
    start(on_kvm);
    run(std::chrono::seconds{20});
    expect_end();
    if (HasFailure()) FAIL() << (on_kvm ? "kvm" : "jit");
  }
}

TEST_P(Moves, NoInterruptIsLost) {
  const auto until = Clock::now() + std::chrono::seconds{40};
  for (unsigned i = 0; moves_ < 400 && Clock::now() < until; ++i) {
    start(i % 2 == 0);
    // A slow host gets nowhere between moves: in the end it may run undisturbed, and only what is lost keeps it.
    for (unsigned moved = 0; moved < most_moves && !source_.ended; ++moved) {
      run(std::chrono::microseconds{random_() % 2000});
      if (HasFatalFailure()) return;
      if (!source_.ended) move();
    }
    if (!source_.ended) run(std::chrono::seconds{30});
    expect_end();
    if (HasFailure()) FAIL() << "in round " << i << ", after " << moves_ << " moves";
  }
  EXPECT_GT(moves_, 20u);
}

INSTANTIATE_TEST_SUITE_P(LocalApics, Moves, testing::Bool(),
                         [](const auto& kind) { return kind.param ? "OfTheKernel" : "Ours"; });

}  // namespace
}  // namespace caisson::machine
