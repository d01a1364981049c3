// A process of the host whose address space is one of the guest's: its user code runs there as it is, at its own
// addresses. The process itself has no code but "make mappings"; it is traced, and every instruction that would reach
// the host's kernel stops it instead.
//   Design   docs/decisions/0027-direct-execution.md
//   Source   ptrace(2): PTRACE_SYSEMU, PTRACE_O_EXITKILL; seccomp(2); prctl(2) PR_SET_TSC; arch_prctl(2)
//   Threads  all by the thread that made it (ptrace knows no other), but wake()
//   Safety   What runs there is hostile. It can read and write what is mapped, and nothing else: system calls are not
//            carried out while it runs (PTRACE_SYSEMU), and a filter allows it none but those that make mappings.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <sys/types.h>
#include <sys/user.h>

#include "base/fd.h"

namespace caisson::jit {

class HostProcess {
 public:
  // Whether this host can do it: a processor with FSGSBASE, whose CPUID can be made to fault, and a kernel that lets us
  // trace. Asked once; the first call takes about a millisecond.
  [[nodiscard]] static bool possible();

  // `memory`: the file that map() maps pieces of. Null where the host has no more processes or memory.
  [[nodiscard]] static std::unique_ptr<HostProcess> create(int memory);
  ~HostProcess();
  HostProcess(const HostProcess&) = delete;
  HostProcess& operator=(const HostProcess&) = delete;

  // Linux's selectors of 64-bit user code and of its stack, which programs can read.
  static constexpr uint16_t user_code = 0x33, user_data = 0x2b;

  // Lowest and highest address that can be mapped.
  static constexpr uint64_t lowest = 0x1'0000, end = 0x7fff'ffff'f000;

  // Changes of the address space, done at the next flush(), in this order. Whole pages between `lowest` and `end`.
  struct Rights {
    bool write = false, execute = false;
  };
  void map(uint64_t linear, uint64_t offset, uint64_t size, Rights rights);
  void protect(uint64_t linear, uint64_t size, Rights rights);
  void unmap(uint64_t linear, uint64_t size);
  void unmap_all();
  // False: the host refused (too many mappings, out of memory) or the process is gone; it is of no more use then.
  enum class Registers : uint8_t { Keep, Spoil };
  [[nodiscard]] bool flush(Registers registers);
  [[nodiscard]] bool failed() const { return failed_; }

  [[nodiscard]] pid_t id() const { return pid_; }

  // Where code and the list of mappings of the process itself stand: one page, which guests hardly ever use.
  [[nodiscard]] uint64_t own_page() const { return own_page_; }

  enum class Stop : uint8_t {
    Woken,         // by wake()
    SystemCall,    // SYSCALL or INT 80h; RIP behind it, RAX in orig_rax
    Fault,         // SIGSEGV or SIGBUS: `address`, unless it was a general protection fault
    Trap,          // SIGTRAP
    Exception,     // any other: #DE, #UD, #MF, #XM
    VsyscallPage,  // the host's kernel wanted to do a call of the former vsyscall page; RIP and RSP are behind its RET
    Gone,          // the process was killed
  };
  struct Stopped {
    Stop why = Stop::Gone;
    uint64_t address = 0;  // Fault: linear address; VsyscallPage: of the call
    bool has_address = false;
    bool debug = false;  // Trap: #DB, not #BP
  };

  [[nodiscard]] bool load(const user_regs_struct& registers);
  [[nodiscard]] bool store(user_regs_struct& registers) const;
  // The XSAVE area in its standard form, without what guests cannot have; at most as much as there is.
  [[nodiscard]] bool load_fpu(std::span<const uint8_t> xsave);
  [[nodiscard]] bool store_fpu(std::span<uint8_t> xsave);

  // Runs guest code until something stops it.
  [[nodiscard]] Stopped run();

  // How often it went on.
  [[nodiscard]] uint64_t resumes() const { return resumes_; }
  // On the host's CPUs since it was made, nanoseconds.
  [[nodiscard]] uint64_t cpu_ns() const;

  // Any thread: run() returns soon, or the next one at once.
  void wake() const;

 private:
  HostProcess() = default;
  [[nodiscard]] bool prepare(int memory);
  [[nodiscard]] bool choose_own_page();
  [[nodiscard]] bool work_off(Registers keep);
  [[nodiscard]] bool wait(int& status) const;
  [[nodiscard]] bool resume(int request);

  struct Change;  // one entry of the list that the process works off

  pid_t pid_ = -1;
  int memory_ = -1;
  bool failed_ = false;
  uint64_t resumes_ = 0;
  Fd page_file_;
  uint8_t* page_ = nullptr;  // the process's own page, as seen from here
  uint64_t own_page_ = 0;
  std::vector<uint8_t> fpu_;  // as the host has it
  struct Wanted {
    uint64_t linear, size, offset;
    uint32_t number, protection;
  };
  std::vector<Wanted> wanted_;
};

}  // namespace caisson::jit
