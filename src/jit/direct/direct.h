// Direct execution: user code of the guest that runs long runs on the host's CPU as it is, in a process of the host
// whose address space is that process's (HostProcess). Pages come into it as the guest's program touches them; what
// only the guest's kernel or the engine can do stops it.
//   Design   docs/decisions/0027-direct-execution.md: what is the same as on the translator, and what pays
//   What     such an address space holds what the processor's translation caches for user accesses may hold for one
//   PCID
//            (SDM vol. 3, 4.10); when those must be dropped its pages are looked up again before it goes on. It is
//            begun for an address space that timer interrupts keep finding in user mode, and given up where most of the
//            time goes into stops.
//   Threads  the vCPU's own; wake() and revoke() any
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "jit/cpu.h"
#include "jit/direct/host_process.h"
#include "jit/direct/same_cpu.h"
#include "jit/interpret/interpreter.h"
#include "jit/mmu/candidates.h"

namespace caisson::jit {

class Direct {
 public:
  // `patience`: how many timer interrupts in a row must find an address space in user mode; 0: it begins at once.
  Direct(Cpu& cpu, unsigned patience);
  ~Direct();
  Direct(const Direct&) = delete;
  Direct& operator=(const Direct&) = delete;

  // The vCPU's thread, from now on, is the one that calls.
  void enter_thread();

  // Whether it is worth while to ask wanted(), which has to be done with the FPU state put away.
  [[nodiscard]] bool likely() const { return active_ != nullptr || patience_ == 0; }
  // In 64-bit user mode: whether run() is the way to go on.
  [[nodiscard]] bool wanted();
  // An interrupt found the vCPU in 64-bit user mode. True: its address space is executed directly.
  bool interrupted();

  // Runs the guest's user code until something else is to be done. `put away`: the FPU state is in Cpu::xsave.
  [[nodiscard]] StepResult run();
  // A process was killed with the guest's state in it: the vCPU cannot go on.
  [[nodiscard]] bool lost() const { return lost_; }

  // As the mirror's, see mmu/mirror.h.
  void address_space_changed(unsigned pcid, bool keep);
  void drop_pcid(unsigned pcid);
  void drop_page(uint64_t linear);
  void drop_large_page(uint64_t linear, unsigned shift);
  void drop_all();

  // The vCPU's thread is about to sleep, or to do nothing directly for a while.
  void rest() { same_cpu_.leave(); }

  // Any thread. run() comes back soon, if it is running.
  void wake() {
    if (running_.load(std::memory_order_seq_cst) == nullptr) return;
    const std::lock_guard hold(lock_);
    if (const HostProcess* running = running_.load(std::memory_order_seq_cst)) running->wake();
  }
  // Any thread: once the vCPU has been out of the guest it does not store to the page without the engine's knowing.
  void revoke(Gpa page);

 private:
  static constexpr uint64_t no_page = 1;
  struct Page {
    Gpa gpa = 0;
    bool writable = false, executable = false;
    bool sensitive = false;  // code that is not executed directly, see sensitive_code.h
  };
  struct Space {
    unsigned pcid = 0;          // that it had last
    uint64_t table = 0;         // its top-level table
    uint64_t missed = no_page;  // page of a fault that the guest's kernel is at
    bool missed_code = false;
    bool stale = false;  // all pages have to be looked up again before it runs
    std::unique_ptr<HostProcess> process;
    int cpu = -1;                                         // of the host, that it may run on
    std::unordered_map<uint64_t, Page> pages;             // by linear address
    std::unordered_multimap<Gpa, uint64_t> linear_pages;  // the writable ones of `pages`
    // Since the last look at whether it pays: how often it stopped for more than a mapping, and how long all took, in
    // nanoseconds; and what the process had done then.
    unsigned served_by_others = 0;
    uint64_t wall = 0, used = 0, resumes = 0;
    std::vector<uint8_t> fpu;  // as the process has it
  };
  enum class Served : uint8_t { No, Yes, Failed };

  [[nodiscard]] bool fits() const;
  [[nodiscard]] bool begin();
  void end(Space& space);
  void give_up(Space& space);
  [[nodiscard]] Space* find_by_table(uint64_t table);
  [[nodiscard]] Candidates::Candidate& candidate() { return candidates_.of(cpu_.cr3); }

  void take_revoked();
  [[nodiscard]] bool prepare(Space& space);
  [[nodiscard]] bool load(Space& space);
  [[nodiscard]] bool store(Space& space);
  [[nodiscard]] bool at_sensitive_code(const Space& space) const;
  [[nodiscard]] StepResult interpret_page(Space& space);
  [[nodiscard]] Served serve(Space& space, uint64_t address);
  void map_around(Space& space, uint64_t linear, bool execute);
  void set_page(Space& space, uint64_t linear, Page page);
  void forget_writable(Space& space, uint64_t linear, Gpa gpa);
  void unmap(Space& space, uint64_t linear);
  void look_again(Space& space);
  [[nodiscard]] StepResult handle(const HostProcess::Stopped& stopped);
  [[nodiscard]] bool pays(Space& space);
  void host_is_busy(bool busy);
  [[nodiscard]] bool waits();
  [[nodiscard]] StepResult run(Space& space);

  Cpu& cpu_;
  const unsigned patience_;
  std::vector<std::unique_ptr<Space>> spaces_;  // the one used last is the last
  Space* active_ = nullptr;
  std::vector<std::unique_ptr<HostProcess>> idle_;  // empty ones
  Candidates candidates_;
  // A busy host: nothing is executed directly before that time, and for how long not; nanoseconds.
  uint64_t not_before_ = 0, pause_ = 0;
  uint64_t thread_used_ = 0;  // this thread's CPU time when it was looked at last
  std::atomic<HostProcess*> running_{nullptr};
  SameCpu same_cpu_;
  user_regs_struct registers_{};
  bool lost_ = false;
  int thread_ = -1;

  void destroy(std::unique_ptr<HostProcess> process);

  std::mutex lock_;  // of `revoked_`, and held where a process goes that wake() might know
  std::vector<Gpa> revoked_;
  bool more_revoked_ = false;  // than are in `revoked_`
  std::atomic<bool> any_revoked_{false};
};

}  // namespace caisson::jit
