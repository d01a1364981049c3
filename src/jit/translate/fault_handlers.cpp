// Host signals raised by translated code: a guest instruction that faults natively (#DE, #XM, #MF, #GP by alignment).
#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <mutex>

#include <ucontext.h>

#include "jit/mmu/mirror.h"
#include "jit/translate/stubs.h"

namespace caisson::jit {
namespace {

struct Entry {
  std::atomic<const CodeCache*> cache{nullptr};
  std::atomic<const uint8_t*> leave{nullptr};
};
std::array<Entry, 64> entries;  // one per engine of this process
std::array<struct sigaction, 65> former;
std::once_flag installed;
constexpr std::array signals{SIGSEGV, SIGBUS, SIGFPE, SIGILL};

thread_local Cpu* current_cpu = nullptr;

void handle(int number, siginfo_t* info, void* context) {
  auto* machine = &static_cast<ucontext_t*>(context)->uc_mcontext;
  const auto* pc = reinterpret_cast<const uint8_t*>(machine->gregs[REG_RIP]);
  for (const Entry& entry : entries) {
    const CodeCache* cache = entry.cache.load(std::memory_order_acquire);
    if (cache == nullptr || !cache->contains(pc)) continue;
    Cpu* cpu = current_cpu;
    constexpr greg_t write = 2;  // of a page fault's error code (SDM vol. 3, 6.15)
    if (number == SIGSEGV && cpu->mirrored &&
        cpu->mirror->fault(reinterpret_cast<uint64_t>(info->si_addr), (machine->gregs[REG_ERR] & write) != 0)) {
      return;
    }
    cpu->leave_detail = reinterpret_cast<uint64_t>(pc);
    cpu->leave_word = static_cast<uint32_t>(machine->gregs[REG_EFL]);
    machine->gregs[REG_RIP] = reinterpret_cast<greg_t>(entry.leave.load(std::memory_order_relaxed));
    return;
  }
  const struct sigaction& old = former[static_cast<size_t>(number)];
  if (old.sa_flags & SA_SIGINFO) {
    old.sa_sigaction(number, info, context);
  } else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) {
    old.sa_handler(number);
  } else {
    signal(number, SIG_DFL);  // returns to the fault, which then ends the process as it should
  }
}

}  // namespace

void install_fault_handlers(const CodeCache& cache, const Stubs& stubs) {
  std::call_once(installed, [] {
    struct sigaction action {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    for (const int number : signals) sigaction(number, &action, &former[static_cast<size_t>(number)]);
  });
  for (Entry& entry : entries) {
    const CodeCache* none = nullptr;
    if (entry.cache.load() != nullptr) continue;
    entry.leave.store(stubs.leave_signal);
    if (entry.cache.compare_exchange_strong(none, &cache)) return;
  }
}

void set_current_cpu(Cpu& cpu) { current_cpu = &cpu; }

void forget_fault_handlers(const CodeCache& cache) {
  for (Entry& entry : entries) {
    if (entry.cache.load() == &cache) entry.cache.store(nullptr);
  }
}

}  // namespace caisson::jit
