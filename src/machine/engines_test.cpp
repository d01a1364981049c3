// One machine on both engines: the same payload comes to the same end on either, and with its CPU moved from one to the
// other in the middle, by CpuState alone.
#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "jit/engine.h"
#include "kvm/engine.h"
#include "x86/registers.h"

// RBX rounds of arithmetic, memory, stack, strings, flags, exceptions, ports and device memory. R8: 8 KiB of memory;
// R11: a device; R13: not 0 where vector instructions and INT, which counts in R12, may be used.
asm(R"(
        .pushsection .rodata
        .globl  engines_payload, engines_payload_end, engines_handler, engines_handler_end
engines_payload:
1:      mov     %rax, %rcx
        rol     $13, %rax
        imul    $0x5bd1e995, %rax, %rax
        xor     %rbx, %rax
        add     %rcx, %r14
        adc     $0, %r15
        mov     %eax, %ecx
        and     $0xff8, %ecx
        xor     %rax, (%r8,%rcx)
        add     (%r8,%rcx), %r9
        push    %rax
        call    4f
        pop     %rdx
        mov     %r8, %rsi
        lea     0x1000(%r8), %rdi
        mov     $9, %ecx
        rep movsq
        xor     %edx, %edx
        mov     %r9, %rax
        mov     $0x12345, %ecx
        div     %rcx
        add     %rdx, %r10
        test    %r13, %r13
        jz      2f
        movq    %rax, %xmm1
        pshufd  $0x1b, %xmm1, %xmm2
        paddd   %xmm2, %xmm0
        mulps   %xmm3, %xmm3
        movups  %xmm0, 0x1800(%r8)
        int     $0x41
2:      mov     $0x100, %edx
        out     %eax, %dx
        in      %dx, %eax
        add     %rax, %r10
        mov     (%r11), %ecx
        add     %rcx, %r10
        movl    %eax, 8(%r11)
        pushf
        pop     %rcx
        add     %rcx, %r10
        dec     %rbx
        jnz     1b
        mov     $0x10f, %edx
        out     %al, %dx
3:      jmp     3b
4:      bt      $5, %rax
        rcl     $7, %r9
        ret
engines_payload_end:
engines_handler:
        inc     %r12
        iretq
engines_handler_end:
        .popsection
)");
extern "C" const uint8_t engines_payload[], engines_payload_end[], engines_handler[], engines_handler_end[];

namespace caisson::machine {
namespace {

using namespace x86;

class NoInterrupts final : public CpuInterrupts {
 public:
  bool pending() const override { return false; }
  std::optional<Taken> take_event(bool) override { return std::nullopt; }
  bool interrupt_ready() const override { return false; }
  std::optional<uint8_t> acknowledge() override { return std::nullopt; }
  uint32_t read_register(uint32_t) override { return 0; }
  void write_register(uint32_t, uint32_t) override {}
  std::optional<uint64_t> read_msr(uint32_t) override { return apic_base(); }
  bool write_msr(uint32_t, uint64_t) override { return true; }
  uint64_t apic_base() const override { return 0xfee0'0900; }
  uint8_t cr8() const override { return 0; }
  void set_cr8(uint8_t) override {}
};

// Answers with a sequence, remembers a sum of what is written, and stops the CPU at the chosen access and at the end.
class Witness final : public Device {
 public:
  std::string_view name() const override { return "witness"; }
  uint64_t read(unsigned, uint64_t, unsigned) override {
    count();
    return accesses * 0x9e37'79b1 & 0xffff'ffff;
  }
  void write(unsigned region, uint64_t offset, unsigned, uint64_t value) override {
    if (region == 0 && offset == 0xf) {
      ended = true;
      cpu->stop();
      return;
    }
    count();
    sum = sum * 31 + value;
  }
  void reset() override { *this = Witness{}; }
  void save(fields::Buffer&) const override {}
  Result<> restore(std::span<const uint8_t>) override { return {}; }
  Witness& operator=(const Witness& other) {
    accesses = other.accesses, sum = other.sum, stop_at = other.stop_at, ended = other.ended;
    return *this;
  }
  Witness() = default;

  uint64_t accesses = 0;
  uint64_t sum = 0;
  uint64_t stop_at = 0;
  bool ended = false;
  Vcpu* cpu = nullptr;

 private:
  void count() {
    if (++accesses == stop_at) cpu->stop();
  }
};

class Engines : public testing::Test {
 protected:
  static constexpr uint64_t rounds = 40, accesses_in_all = 4 * rounds;
  static constexpr uint64_t page_tables = 0x1000, gdt = 0x8000, idt = 0x9000, code = 0x20000, handler = 0x30000,
                            stack = 0x50000, data = 0x60000, device = 0xd000'0000;

  void SetUp() override {
    auto opened = kvm::open_device();
    if (!opened) GTEST_SKIP() << opened.error().message;
    memory_ = *GuestMemory::create(uint64_t{16} << 20);
    // The model without AVX: vector state that every host has.
    auto model = CpuModel::create("x86-64-v2", 1, clock_.tsc_hz());
    ASSERT_TRUE(model) << model.error().message;
    model_ = std::make_unique<CpuModel>(std::move(*model));
    bus_.map(Space::Port, 0x100, 0x10, witness_, 0);
    bus_.map(Space::Memory, device, 0x10, witness_, 1);
    const EngineServices services{*memory_, bus_, clock_, *model_};
    auto jit = jit::JitEngine::create(services, {});
    ASSERT_TRUE(jit) << jit.error().message;
    jit_ = std::move(*jit);
    auto kvm = kvm::KvmEngine::create(services, std::move(*opened), {.kernel_apics = false});
    if (!kvm) GTEST_SKIP() << kvm.error().message;
    kvm_ = std::move(*kvm);
    jit_cpu_ = *jit_->create_vcpu(0, interrupts_);
    auto kvm_cpu = kvm_->create_vcpu(0, interrupts_);
    if (!kvm_cpu) GTEST_SKIP() << kvm_cpu.error().message;
    kvm_cpu_ = std::move(*kvm_cpu);
    reset_ = jit_cpu_->store();
    all_instructions_ = true;
    // A /dev/kvm that emulates ring 0 may lack such instructions.
    start(*kvm_cpu_);
    if (kvm_cpu_->run() == ExitReason::InternalError) all_instructions_ = false;
    start(*jit_cpu_);
    EXPECT_EQ(jit_cpu_->run(), ExitReason::Stopped);
    want_ = jit_cpu_->store();
    want_memory_ = bytes();
    want_sum_ = witness_.sum;
    ASSERT_EQ(witness_.accesses, accesses_in_all);
  }

  void TearDown() override {
    jit_cpu_.reset();
    kvm_cpu_.reset();
    jit_.reset();
  }

  template <class T>
  void put(uint64_t address, T value) {
    ASSERT_TRUE(memory_->write_object(address, value));
  }
  std::vector<uint8_t> bytes() {
    const auto span = memory_->span(stack - 0x100, data + 0x2000 - stack + 0x100);
    return {span.begin(), span.end()};
  }

  // Memory and CPU as at the payload's start.
  void start(Vcpu& cpu) {
    ASSERT_TRUE(memory_->clear());
    jit_->memory_replaced();
    witness_.reset();
    witness_.cpu = &cpu;
    put<uint64_t>(page_tables, (page_tables + 0x1000) | 3);
    put<uint64_t>(page_tables + 0x1000, (page_tables + 0x2000) | 3);
    put<uint64_t>(page_tables + 0x1018, (page_tables + 0x3000) | 3);
    for (uint64_t i = 0; i < 512; ++i) {
      put<uint64_t>(page_tables + 0x2000 + 8 * i, i << 21 | 0xe3);
      put<uint64_t>(page_tables + 0x3000 + 8 * i, 0xc000'00e3 + (i << 21));
    }
    put<uint64_t>(gdt + 8, 0x00af'9b00'0000'ffff);
    put<uint64_t>(gdt + 16, 0x00cf'9300'0000'ffff);
    put<uint64_t>(idt + 16 * 0x41,
                  (handler & 0xffff) | uint64_t{8} << 16 | uint64_t{0x8e00} << 32 | (handler >> 16) << 48);
    ASSERT_TRUE(memory_->write(code, {engines_payload, engines_payload_end}));
    ASSERT_TRUE(memory_->write(handler, {engines_handler, engines_handler_end}));
    CpuState state = reset_;
    state.gpr = {};
    state.gpr[Rax] = 0x1234'5678'9abc'def0;
    state.gpr[Rbx] = rounds;
    state.gpr[Rsp] = stack;
    state.gpr[R8] = data;
    state.gpr[R11] = device;
    state.gpr[R13] = all_instructions_;
    state.rip = code;
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
    state.cr4 = cr4::pae | cr4::osfxsr | cr4::osxmmexcpt;
    state.efer = efer::lme | efer::lma;
    const auto loaded = cpu.load(state);
    ASSERT_TRUE(loaded) << loaded.error().message;
  }

  void move(Vcpu& from, Vcpu& to) {
    const auto loaded = to.load(from.store());
    ASSERT_TRUE(loaded) << loaded.error().message;
    jit_->memory_replaced();
    witness_.cpu = &to;
  }

  void expect_end(const Vcpu& cpu) {
    const CpuState got = cpu.store();
    EXPECT_EQ(got.gpr, want_.gpr);
    EXPECT_EQ(got.rip, want_.rip);
    EXPECT_EQ(got.rflags, want_.rflags);
    EXPECT_EQ(witness_.accesses, accesses_in_all);
    EXPECT_EQ(witness_.sum, want_sum_);
    EXPECT_TRUE(bytes() == want_memory_);
    if (!all_instructions_) return;
    // XMM0 to XMM3 (SDM vol. 1, 10.5.1).
    EXPECT_TRUE(std::equal(got.xsave.data.begin() + 160, got.xsave.data.begin() + 224, want_.xsave.data.begin() + 160));
  }

  FakeClock clock_;
  Bus bus_;
  Witness witness_;
  NoInterrupts interrupts_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<CpuModel> model_;
  std::unique_ptr<jit::JitEngine> jit_;
  std::unique_ptr<kvm::KvmEngine> kvm_;
  std::unique_ptr<Vcpu> jit_cpu_, kvm_cpu_;
  CpuState reset_, want_;
  std::vector<uint8_t> want_memory_;
  uint64_t want_sum_ = 0;
  bool all_instructions_ = true;
  std::mt19937 random_{1};
};

TEST_F(Engines, BothComeToTheSameEnd) {
  start(*kvm_cpu_);
  ASSERT_EQ(kvm_cpu_->run(), ExitReason::Stopped) << kvm_cpu_->error();
  expect_end(*kvm_cpu_);
}

// At every access to a device, which is in the middle of an instruction, in turn from either engine to the other.
TEST_F(Engines, MoveAtEveryAccess) {
  for (const bool first_on_kvm : {false, true}) {
    for (uint64_t stop_at = 1; stop_at <= accesses_in_all; ++stop_at) {
      Vcpu& first = first_on_kvm ? *kvm_cpu_ : *jit_cpu_;
      Vcpu& second = first_on_kvm ? *jit_cpu_ : *kvm_cpu_;
      start(first);
      witness_.stop_at = stop_at;
      ASSERT_EQ(first.run(), ExitReason::Stopped) << first.error();
      ASSERT_EQ(witness_.accesses, stop_at);
      ASSERT_FALSE(witness_.ended);
      move(first, second);
      ASSERT_EQ(second.run(), ExitReason::Stopped) << second.error();
      expect_end(second);
      if (HasFailure()) FAIL() << "moved at access " << stop_at << (first_on_kvm ? " from kvm" : " from jit");
    }
  }
}

TEST_F(Engines, MoveBackAndForth) {
  for (int i = 0; i < 20; ++i) {
    start(*kvm_cpu_);
    Vcpu* here = kvm_cpu_.get();
    Vcpu* there = jit_cpu_.get();
    while (!witness_.ended) {
      witness_.stop_at = witness_.accesses + 1 + random_() % 5;
      ASSERT_EQ(here->run(), ExitReason::Stopped) << here->error();
      if (witness_.ended) break;
      move(*here, *there);
      std::swap(here, there);
    }
    expect_end(*here);
    if (HasFailure()) FAIL() << "in round " << i;
  }
}

// Wherever another thread's stop happens to find it.
TEST_F(Engines, MoveFromKvmAtAnyInstruction) {
  for (int i = 0; i < 200; ++i) {
    start(*kvm_cpu_);
    const std::chrono::microseconds wait{random_() % 3000};
    std::thread other{[&] {
      std::this_thread::sleep_for(wait);
      kvm_cpu_->stop();
    }};
    const ExitReason reason = kvm_cpu_->run();
    other.join();
    ASSERT_EQ(reason, ExitReason::Stopped) << kvm_cpu_->error();
    Vcpu* last = kvm_cpu_.get();
    if (!witness_.ended) {
      move(*kvm_cpu_, *jit_cpu_);
      ASSERT_EQ(jit_cpu_->run(), ExitReason::Stopped) << jit_cpu_->error();
      last = jit_cpu_.get();
    }
    expect_end(*last);
    // The stop that came after the end waits for the next run.
    start(*kvm_cpu_);
    witness_.cpu = kvm_cpu_.get();
    kvm_cpu_->stop();
    ASSERT_EQ(kvm_cpu_->run(), ExitReason::Stopped);
    if (HasFailure()) FAIL() << "in round " << i;
  }
}

}  // namespace
}  // namespace caisson::machine
