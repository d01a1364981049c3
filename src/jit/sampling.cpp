#include "jit/sampling.h"

#include <mutex>

#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "jit/engine.h"
#include "jit/profile.h"

// Debian 12's glibc has the member, but no name for it.
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace caisson::jit {
namespace {

constexpr size_t stack_size = 64 << 10;  // an AVX-512 frame takes 4 KiB of it

void handle(int, siginfo_t* info, void* context) {
  if (info->si_code != SI_TIMER) return;
  const auto* cpu = static_cast<const Cpu*>(info->si_value.sival_ptr);
  const auto& machine = static_cast<const ucontext_t*>(context)->uc_mcontext;
  const auto* pc = reinterpret_cast<const uint8_t*>(machine.gregs[REG_RIP]);
  cpu->profile->sample(*cpu, cpu->engine->cache(), pc, 1 + static_cast<uint64_t>(info->si_overrun));
}

}  // namespace

Sampling::Sampling(Cpu& cpu) {
  if (cpu.profile == nullptr) return;
  static std::once_flag installed;
  std::call_once(installed, [] {
    struct sigaction action {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigaction(SIGPROF, &action, nullptr);
  });
  stack_t stack{};
  sigaltstack(nullptr, &stack);
  if (stack.ss_flags & SS_DISABLE) {
    stack_ = std::make_unique<uint8_t[]>(stack_size);
    stack = {.ss_sp = stack_.get(), .ss_flags = 0, .ss_size = stack_size};
    sigaltstack(&stack, nullptr);
  }
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGPROF;
  event.sigev_value.sival_ptr = &cpu;
  event.sigev_notify_thread_id = static_cast<int>(syscall(SYS_gettid));
  if (timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0) return;
  running_ = true;
  const itimerspec period{.it_interval = {.tv_sec = 0, .tv_nsec = tick * 1000},
                          .it_value = {.tv_sec = 0, .tv_nsec = tick * 1000}};
  timer_settime(timer_, 0, &period, nullptr);
}

Sampling::~Sampling() {
  if (running_) timer_delete(timer_);  // a signal of it that waits is dropped
  if (stack_ != nullptr) {
    const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
    sigaltstack(&none, nullptr);
  }
}

}  // namespace caisson::jit
