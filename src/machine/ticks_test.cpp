// Time in a machine that moves from engine to engine: a periodic timer's tick that is pending at the move, and the KVM
// clock.
#include <bit>

#include "machine/two_engines.h"

// RDI: local APIC; R8: data.
// Ticks: with interrupts off it waits until a tick is pending, has itself moved, takes what is pending, and so on. (An
// emulated ring 0 gives it some instructions late, but not as late as the next one.)
// Clock: R9 is the address of the KVM clock's structure, which it copies to R8 with the TSC of the same moment behind
// it; R10 is what to write to the clock's MSR first.
asm(R"(
        .pushsection .rodata
        .globl  ticks_start, ticks_handler, ticks_end, clock_start, clock_end
        .balign 4096
ticks_start:
        movl    $0xb, 0x3e0(%rdi)
        movl    $0x20060, 0x320(%rdi)
        movl    $20000000, 0x380(%rdi)
1:      pause
        testl   $1, 0x230(%rdi)
        jz      1b
        mov     $0x10e, %edx
        out     %al, %dx
        mov     (%r8), %ebx
        mov     $2000, %ecx
        sti
2:      cmp     (%r8), %ebx
        jne     3f
        dec     %ecx
        jnz     2b
3:      cli
        incl    4(%r8)
        jmp     1b
        .balign 64
ticks_handler:
        incl    (%r8)
        movl    $0, 0xb0(%rdi)
        iretq
ticks_end:
        .balign 4096
clock_start:
        mov     $0x4b564d01, %ecx
        mov     %r10d, %eax
        xor     %edx, %edx
        wrmsr
1:      mov     (%r9), %ebx
        test    $1, %bl
        jnz     1b
        .irp    field, 0, 8, 16, 24
        mov     \field(%r9), %rax
        mov     %rax, \field(%r8)
        .endr
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     %rax, 32(%r8)
        cmp     (%r9), %ebx
        jne     1b
        mov     $0x10e, %edx
        out     %al, %dx
        jmp     1b
clock_end:
        .popsection
)");
extern "C" const uint8_t ticks_start[], ticks_handler[], ticks_end[], clock_start[], clock_end[];

namespace caisson::machine {
namespace {

class Ticks : public TwoEngines {
 protected:
  // The first CPU runs the payload, the second one sleeps.
  void start(bool on_kvm, std::span<const uint8_t> payload,
             const std::vector<std::pair<unsigned, const uint8_t*>>& handlers, const CpuState& first) {
    CpuState second = start_state(1);
    second.activity = Activity::WaitForSipi;
    TwoEngines::start(on_kvm, payload, handlers, {first, second});
  }
  void run() {
    Vcpu& cpu = *cpus()[0];
    ASSERT_EQ(cpu.run(), ExitReason::Stopped) << cpu.error();
    cpus()[1]->stop();
    ASSERT_EQ(cpus()[1]->run(), ExitReason::Stopped) << cpus()[1]->error();
  }
};

TEST_P(Ticks, OneThatIsPendingAtAMoveComesOnce) {
  constexpr unsigned rounds = 20;
  start(false, {ticks_start, ticks_end}, {{0x60, ticks_handler}}, start_state(0));
  for (unsigned round = 0; round < rounds; ++round) {
    run();
    if (HasFatalFailure()) return;
    ASSERT_EQ(count(4), round);
    ASSERT_GE(count(0), round) << "one was lost" << where();
    // Where the host was slow the next one was due at once. One that comes again at each move would be as many more.
    ASSERT_LE(count(0), round + rounds / 2) << "they come twice" << where();
    move();
    if (HasFatalFailure()) return;
    const CpuState state = cpus()[0]->store();
    const LocalApicState moved = [this] {
      const std::lock_guard hold(bus_.lock());  // its timer goes on
      return chipset_->local_apic(0).state();
    }();
    EXPECT_EQ(moved.irr[3] & 1, 1u) << "vector 60h is not pending" << where();
    EXPECT_EQ(moved.initial_count, 20'000'000u);
    EXPECT_NE(moved.timer_deadline_ns, 0u);
    EXPECT_EQ(state.rflags & x86::rflags::interrupt, 0u);
  }
}

// Linux Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW.
struct KvmTime {
  uint32_t version, pad;
  uint64_t tsc, ns;
  uint32_t multiplier;
  int8_t shift;
  uint8_t flags, pads[2];
  uint64_t tsc_now;  // the payload's

  [[nodiscard]] uint64_t now() const {
    const uint64_t ticks = tsc_now - tsc;
    const uint64_t scaled = shift < 0 ? ticks >> -shift : ticks << shift;
    return ns + static_cast<uint64_t>(static_cast<double>(scaled) * multiplier / 4294967296.0);
  }
};
static_assert(sizeof(KvmTime) == 40);

TEST_P(Ticks, TheKvmClockIsTheMachinesOnBothEngines) {
  // Two frequencies of one TSC, as KVM and we know it, differ by parts in a million; a second is long in this test.
  constexpr uint64_t tolerance_ns = 1'000'000;
  constexpr uint64_t page = data + 0x1000;
  for (const bool first_on_kvm : {false, true}) {
    CpuState first = start_state(0);
    first.gpr[x86::R9] = page;
    first.gpr[x86::R10] = page | 1;
    start(first_on_kvm, {clock_start, clock_end}, {}, first);
    for (unsigned moves = 0; moves < 6; ++moves) {
      const uint64_t before_ns = clock_->now_ns(), before_tsc = clock_->tsc();
      run();
      if (HasFatalFailure()) return;
      const uint64_t after_ns = clock_->now_ns(), after_tsc = clock_->tsc();
      KvmTime time{};
      ASSERT_TRUE(memory_->read_object(data, time));
      SCOPED_TRACE(fmt::format("on {} after {} moves: ns {} at tsc {}, now tsc {}, machine {} to {}, its tsc {} to {}",
                               on_kvm_ ? "kvm" : "jit", moves, time.ns, time.tsc, time.tsc_now, before_ns, after_ns,
                               before_tsc, after_tsc));
      EXPECT_EQ(time.version % 2, 0u);
      EXPECT_LE(time.ns, after_ns + tolerance_ns);
      // An emulated ring 0 reads another TSC than the guest's.
      if (!on_kvm_ || deadlines_) {
        EXPECT_GE(time.tsc_now, before_tsc);
        EXPECT_LE(time.tsc_now, after_tsc);
        EXPECT_GE(time.now() + tolerance_ns, before_ns);
        EXPECT_LE(time.now(), after_ns + tolerance_ns);
      }
      if (HasFailure()) return;
      move();
      if (HasFatalFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(LocalApics, Ticks, testing::Bool(),
                         [](const auto& kind) { return kind.param ? "OfTheKernel" : "Ours"; });

}  // namespace
}  // namespace caisson::machine
