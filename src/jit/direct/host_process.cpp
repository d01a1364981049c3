#include "jit/direct/host_process.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <random>

#include <asm/hwcap2.h>
#include <asm/prctl.h>
#include <elf.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/child_time.h"

namespace caisson::jit {

// As the code below reads it.
struct HostProcess::Change {
  uint32_t number, protection;
  uint64_t linear, size, offset;
  uint32_t flags, file;
};

namespace {

constexpr size_t page_bytes = 4096;
constexpr int wake_signal = SIGUSR1;

// The process's own code: works off R12 entries of a list at RBX, and stops. RAX is what the last call returned.
constexpr std::array<uint8_t, 45> own_code{
    0x8b, 0x03,                          // next: mov eax, [rbx]
    0x8b, 0x53, 0x04,                    // mov edx, [rbx+4]
    0x48, 0x8b, 0x7b, 0x08,              // mov rdi, [rbx+8]
    0x48, 0x8b, 0x73, 0x10,              // mov rsi, [rbx+16]
    0x4c, 0x8b, 0x4b, 0x18,              // mov r9, [rbx+24]
    0x44, 0x8b, 0x53, 0x20,              // mov r10d, [rbx+32]
    0x44, 0x8b, 0x43, 0x24,              // mov r8d, [rbx+36]
    0x0f, 0x05,                          // syscall
    0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff,  // cmp rax, -4095
    0x73, 0x09,                          // jae end
    0x48, 0x83, 0xc3, 0x28,              // add rbx, 40
    0x41, 0xff, 0xcc,                    // dec r12d
    0x75, 0xd4,                          // jnz next
    0xcc,                                // end: int3
};
constexpr size_t list_at = 64;

int protection(HostProcess::Rights rights) {
  return PROT_READ | (rights.write ? PROT_WRITE : 0) | (rights.execute ? PROT_EXEC : 0);
}

// What the process may ever do of its own accord: nothing but make mappings. What guest code tries is not even looked
// at, as it is not carried out; but the host's kernel does calls of the former vsyscall page by itself (SIGSYS, then).
bool allow_mappings_only() {
  constexpr auto call = [](long number) { return static_cast<uint32_t>(number); };
  static constexpr std::array code{
      sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 4),
      sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call(SYS_mmap), 3, 0),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call(SYS_munmap), 2, 0),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call(SYS_mprotect), 1, 0),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{static_cast<unsigned short>(code.size()), const_cast<sock_filter*>(code.data())};
  return syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0;
}

// In the new process, which is a copy of this one. Only system calls: other threads may have held locks. It ends in a
// stop, from which its tracer takes all of the copy away.
[[noreturn]] void become_empty(int memory, int page_file, uint64_t own_page, pid_t parent) {
  const auto check = [](bool good) {
    if (!good) syscall(SYS_exit_group, 1);
  };
  check(syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0);
  check(syscall(SYS_getppid) == parent);  // else it has ended before
  check(syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  // The guest's time and identification, not the host's.
  check(syscall(SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) == 0);
  check(syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) == 0);
#ifdef RSEQ_SIG
  // The kernel would go on writing to where the C library had it written to.
  if (__rseq_size != 0) {
    char* at = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    check(syscall(SYS_rseq, at, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) == 0);
  }
#endif
  constexpr int code_protection = PROT_READ | PROT_EXEC;
  check(syscall(SYS_mmap, own_page, page_bytes, code_protection, MAP_SHARED | MAP_FIXED_NOREPLACE, page_file, 0) ==
        static_cast<long>(own_page));
  const uint64_t no_signals = 0;
  check(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &no_signals, nullptr, sizeof no_signals) == 0);
  if (memory > 0) check(syscall(SYS_close_range, 0, memory - 1, 0) == 0);
  check(syscall(SYS_close_range, memory + 1, ~0u, 0) == 0);
  check(syscall(SYS_ptrace, PTRACE_TRACEME, 0, nullptr, nullptr) == 0);
  const long self = syscall(SYS_getpid);
  check(allow_mappings_only());
  // (Not allowed any more; the signal that it makes is the stop.)
  syscall(SYS_tgkill, self, self, SIGSTOP);
  for (;;) syscall(SYS_exit_group, 1);
}

}  // namespace

std::unique_ptr<HostProcess> HostProcess::create(int memory) {
  std::unique_ptr<HostProcess> process{new HostProcess};
  if (!process->prepare(memory)) return nullptr;
  return process;
}

// Anywhere but where programs, heaps, libraries and stacks are put, and nothing is here either.
bool HostProcess::choose_own_page() {
  constexpr uint64_t first = 0x1000'0000'0000, span = 0x4000'0000'0000;
  std::random_device random;
  for (unsigned tries = 0; tries < 32; ++tries) {
    const uint64_t at = first + ((uint64_t{random()} << 32 | random()) % span & ~uint64_t{page_bytes - 1});
    void* got = mmap(reinterpret_cast<void*>(at), page_bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == MAP_FAILED) continue;
    munmap(got, page_bytes);
    if (reinterpret_cast<uint64_t>(got) != at) continue;
    own_page_ = at;
    return true;
  }
  return false;
}

bool HostProcess::prepare(int memory) {
  memory_ = memory;
  page_file_ = Fd{memfd_create("caisson direct", MFD_CLOEXEC)};
  if (!page_file_.valid() || ftruncate(page_file_.get(), page_bytes) != 0) return false;
  void* page = mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, page_file_.get(), 0);
  if (page == MAP_FAILED) return false;
  page_ = static_cast<uint8_t*>(page);
  std::memcpy(page_, own_code.data(), own_code.size());
  if (!choose_own_page()) return false;

  // No signal at its end: nobody but us waits for it.
  const pid_t parent = getpid();
  const long pid = syscall(SYS_clone, 0, nullptr, nullptr, nullptr, nullptr);
  if (pid == 0) become_empty(memory, page_file_.get(), own_page_, parent);
  if (pid < 0) return false;
  pid_ = static_cast<pid_t>(pid);
  child_time::add(pid_);
  int status = 0;
  if (!wait(status) || !WIFSTOPPED(status)) return false;
  if (ptrace(PTRACE_SETOPTIONS, pid_, nullptr, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD) != 0) return false;
  iovec whole{};
  fpu_.resize(size_t{1} << 16);
  whole = {fpu_.data(), fpu_.size()};
  if (ptrace(PTRACE_GETREGSET, pid_, NT_X86_XSTATE, &whole) != 0) return false;
  fpu_.resize(whole.iov_len);
  page_file_.reset();
  unmap_all();
  return flush(Registers::Spoil);
}

HostProcess::~HostProcess() {
  if (pid_ > 0) {
    child_time::remove(pid_);
    kill(pid_, SIGKILL);
    int status = 0;
    while (waitpid(pid_, &status, __WALL) == -1 && errno == EINTR) {
    }
  }
  if (page_ != nullptr) munmap(page_, page_bytes);
}

bool HostProcess::wait(int& status) const {
  for (;;) {
    const pid_t got = waitpid(pid_, &status, __WALL);
    if (got == pid_) return true;
    if (got == -1 && errno != EINTR) return false;
  }
}

bool HostProcess::resume(int request) {
  ++resumes_;
  return ptrace(static_cast<__ptrace_request>(request), pid_, nullptr, nullptr) == 0;
}

uint64_t HostProcess::cpu_ns() const {
  clockid_t clock = 0;
  timespec used{};
  if (clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &used) != 0) return 0;
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec);
}

void HostProcess::wake() const { syscall(SYS_tgkill, pid_, pid_, wake_signal); }

void HostProcess::map(uint64_t linear, uint64_t offset, uint64_t size, Rights rights) {
  wanted_.push_back({.linear = linear,
                     .size = size,
                     .offset = offset,
                     .number = SYS_mmap,
                     .protection = static_cast<uint32_t>(protection(rights))});
}

void HostProcess::protect(uint64_t linear, uint64_t size, Rights rights) {
  wanted_.push_back({.linear = linear,
                     .size = size,
                     .offset = 0,
                     .number = SYS_mprotect,
                     .protection = static_cast<uint32_t>(protection(rights))});
}

void HostProcess::unmap(uint64_t linear, uint64_t size) {
  if (!wanted_.empty()) {
    Wanted& last = wanted_.back();
    if (last.number == SYS_munmap && last.linear + last.size == linear) {
      last.size += size;
      return;
    }
  }
  wanted_.push_back({.linear = linear, .size = size, .offset = 0, .number = SYS_munmap, .protection = 0});
}

void HostProcess::unmap_all() {
  wanted_.clear();
  unmap(0, own_page_);
  unmap(own_page_ + page_bytes, end - own_page_ - page_bytes);
}

bool HostProcess::flush(Registers keep) {
  failed_ = failed_ || !work_off(keep);
  return !failed_;
}

bool HostProcess::work_off(Registers keep) {
  constexpr size_t most = (page_bytes - list_at) / sizeof(Change);
  static_assert(sizeof(Change) == 40 && own_code.size() <= list_at);
  auto* list = reinterpret_cast<Change*>(page_ + list_at);
  if (wanted_.empty()) return true;
  user_regs_struct before{};
  if (keep == Registers::Keep) {
    if (!store(before)) return false;
  } else {
    before.cs = user_code;
    before.ss = user_data;
  }
  size_t done = 0;
  while (done < wanted_.size()) {
    const size_t count = std::min(most, wanted_.size() - done);
    for (size_t i = 0; i < count; ++i) {
      const Wanted& wanted = wanted_[done + i];
      list[i] = {.number = wanted.number,
                 .protection = wanted.protection,
                 .linear = wanted.linear,
                 .size = wanted.size,
                 .offset = wanted.offset,
                 .flags = MAP_SHARED | MAP_FIXED | MAP_POPULATE,
                 .file = static_cast<uint32_t>(memory_)};
    }
    done += count;
    user_regs_struct registers = before;
    registers.rip = own_page_;
    registers.rbx = own_page_ + list_at;
    registers.r12 = count;
    registers.eflags = 0x202;
    if (!load(registers)) return false;
    int status = 0;
    do {
      if (!resume(PTRACE_CONT) || !wait(status) || !WIFSTOPPED(status)) return false;
    } while (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSYS && WSTOPSIG(status) != SIGSEGV);
    errno = 0;
    const long left = ptrace(PTRACE_PEEKUSER, pid_, offsetof(struct user, regs.r12), nullptr);
    const bool good = WSTOPSIG(status) == SIGTRAP && errno == 0 && left == 0;
    // The guest may read this page.
    std::memset(static_cast<void*>(list), 0, count * sizeof(Change));
    if (!good) return false;
  }
  wanted_.clear();
  return keep == Registers::Spoil || load(before);
}

bool HostProcess::load(const user_regs_struct& registers) {
  user_regs_struct copy = registers;
  copy.orig_rax = ~0ull;  // else the kernel might think of a system call to be done again
  return ptrace(PTRACE_SETREGS, pid_, nullptr, &copy) == 0;
}

bool HostProcess::store(user_regs_struct& registers) const {
  return ptrace(PTRACE_GETREGS, pid_, nullptr, &registers) == 0;
}

bool HostProcess::load_fpu(std::span<const uint8_t> xsave) {
  // What the guest has not got is in its initial state: XSTATE_BV (SDM vol. 1, 13.4.2) comes with the area.
  std::memcpy(fpu_.data(), xsave.data(), std::min(xsave.size(), fpu_.size()));
  constexpr size_t software_reserved = 464;
  std::memset(fpu_.data() + software_reserved, 0, 48);
  iovec whole{fpu_.data(), fpu_.size()};
  return ptrace(PTRACE_SETREGSET, pid_, NT_X86_XSTATE, &whole) == 0;
}

bool HostProcess::store_fpu(std::span<uint8_t> xsave) {
  iovec part{xsave.data(), std::min(xsave.size(), fpu_.size())};
  return ptrace(PTRACE_GETREGSET, pid_, NT_X86_XSTATE, &part) == 0;
}

HostProcess::Stopped HostProcess::run() {
  for (;;) {
    int status = 0;
    if (!resume(PTRACE_SYSEMU) || !wait(status) || !WIFSTOPPED(status)) return {.why = Stop::Gone};
    switch (WSTOPSIG(status)) {
      case wake_signal: return {.why = Stop::Woken};
      case SIGTRAP | 0x80: return {.why = Stop::SystemCall};
      case SIGILL:
      case SIGFPE: return {.why = Stop::Exception};
      case SIGTRAP:
      case SIGSYS:
      case SIGSEGV:
      case SIGBUS: {
        siginfo_t info{};
        if (ptrace(PTRACE_GETSIGINFO, pid_, nullptr, &info) != 0) return {.why = Stop::Gone};
        if (info.si_signo == SIGTRAP) return {.why = Stop::Trap, .debug = info.si_code != SI_KERNEL};
        if (info.si_signo == SIGSYS)
          return {.why = Stop::VsyscallPage, .address = reinterpret_cast<uint64_t>(info.si_call_addr)};
        const bool has_address = info.si_signo == SIGSEGV && info.si_code > 0 && info.si_code != SI_KERNEL;
        return {.why = Stop::Fault,
                .address = has_address ? reinterpret_cast<uint64_t>(info.si_addr) : 0,
                .has_address = has_address};
      }
      default: break;  // somebody else's signal, which does not reach it
    }
  }
}

bool HostProcess::possible() {
#if defined(__SANITIZE_THREAD__)
  return false;
#else
  static const bool answer = [] {
    if ((getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) == 0) return false;
    // Does it do what it should? CPUID and RDTSC fault, SYSCALL stops, and nothing else happens.
    const Fd memory{memfd_create("caisson direct", MFD_CLOEXEC)};
    if (!memory.valid() || ftruncate(memory.get(), page_bytes) != 0) return false;
    constexpr std::array<uint8_t, 6> code{0x0f, 0xa2, 0x0f, 0x31, 0x0f, 0x05};
    if (pwrite(memory.get(), code.data(), code.size(), 0) != static_cast<ssize_t>(code.size())) return false;
    const auto process = create(memory.get());
    if (process == nullptr) return false;
    constexpr uint64_t at = 0x40'0000;
    process->map(at, 0, page_bytes, {.write = false, .execute = true});
    if (!process->flush(Registers::Keep)) return false;
    constexpr std::array stops{Stop::Fault, Stop::Fault, Stop::SystemCall};
    for (size_t i = 0; i < stops.size(); ++i) {
      user_regs_struct registers{};
      if (!process->store(registers)) return false;
      registers.rip = at + 2 * i;
      registers.rax = 39;
      if (!process->load(registers) || process->run().why != stops[i] || !process->store(registers)) return false;
      if (registers.rip != at + 2 * i + (stops[i] == Stop::SystemCall ? 2 : 0)) return false;
    }
    return true;
  }();
  return answer;
#endif
}

}  // namespace caisson::jit
