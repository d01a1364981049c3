// A machine of two CPUs with its interrupt controllers moves from engine to engine, at any moment and while interrupts
// of every kind are under way: none is lost, none comes twice.
#include <bit>
#include <chrono>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "machine/two_engines.h"

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

class Moves : public TwoEngines {
 protected:
  static constexpr unsigned rounds = 30, most_moves = 100;
  using Clock = std::chrono::steady_clock;

  void start(bool on_kvm) {
    std::vector<CpuState> states;
    for (unsigned i = 0; i < cpu_count; ++i) {
      CpuState& state = states.emplace_back(start_state(i));
      state.gpr[R9] = i + 1;
      state.gpr[R10] = deadlines_ ? clock_->tsc_hz() / 10'000 : 0;
      state.gpr[R12] = rounds;
      if (i != 0) state.rip += static_cast<uint64_t>(moves_second - moves_first);
    }
    TwoEngines::start(
        on_kvm, {moves_first, moves_end},
        {{0x41, moves_ipi}, {0x50, moves_level}, {0x51, moves_msi}, {0x35, moves_pic}, {0x60, moves_timer}}, states);
  }

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

  // What R9 comes to.
  static uint64_t sum(uint64_t value, unsigned times) {
    for (uint64_t round = 1; round <= rounds; ++round) {
      for (unsigned i = 0; i < times; ++i) value += (std::rotl(value, 13) * 0x5bd1'e995) ^ round;
    }
    return value;
  }

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
