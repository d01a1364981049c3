// The child maps code, data and a block of its own at fixed addresses. A short prologue loads every register from the
// block and jumps to the case; the signal that ends it finds all registers in its frame.
//   Source   Intel SDM vol. 1, 13.4 (XSAVE area); Linux's struct _fpstate and sw_reserved in <asm/sigcontext.h>
#include "cpufuzz/native.h"

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

namespace caisson::cpufuzz {
namespace {

constexpr uint64_t block_address = 0x3000'0000;
constexpr uint32_t stub_offset = 0x8000, block_size = 0x9000;

// What stub and handler share; at block_address in the child.
struct Block {
  alignas(64) std::array<uint8_t, 4096> xsave;
  uint64_t gpr[16];
  uint64_t rflags, fs_base, gs_base, target;
  uint64_t host_rsp, host_fs, stack_end;
  uint32_t mxcsr;
  uint8_t stack[1024];
};
static_assert(sizeof(Block) <= stub_offset);

void put32(uint8_t*& at, uint64_t value) {
  const auto narrow = static_cast<uint32_t>(value);
  std::memcpy(at, &narrow, 4);
  at += 4;
}

class Assembler {
 public:
  explicit Assembler(uint8_t* at) : at_(at) {}
  void bytes(std::initializer_list<uint8_t> list) {
    for (const uint8_t byte : list) *at_++ = byte;
  }
  // opcode /reg [absolute address of a member]
  void absolute(uint8_t rex, std::initializer_list<uint8_t> opcode, unsigned reg, size_t member) {
    bytes({static_cast<uint8_t>(rex | (reg >= 8 ? 4 : 0))});
    bytes(opcode);
    bytes({static_cast<uint8_t>(0x04 | (reg & 7) << 3), 0x25});
    put32(at_, block_address + member);
  }
  [[nodiscard]] uint8_t* here() const { return at_; }

 private:
  uint8_t* at_;
};

// void stub(): does not return by itself; the handler continues at `landing`.
void emit_stub(uint8_t* at, uint64_t& landing) {
  Assembler a(at);
  a.bytes({0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57});  // push rbx, rbp, r12-r15
  a.absolute(0x48, {0x89}, 4, offsetof(Block, host_rsp));
  a.bytes({0xf3, 0x48, 0x0f, 0xae, 0xc0});  // rdfsbase rax
  a.absolute(0x48, {0x89}, 0, offsetof(Block, host_fs));
  a.absolute(0x48, {0x8b}, 0, offsetof(Block, gs_base));
  a.bytes({0xf3, 0x48, 0x0f, 0xae, 0xd8});  // wrgsbase rax
  a.absolute(0x48, {0x8b}, 0, offsetof(Block, fs_base));
  a.bytes({0xf3, 0x48, 0x0f, 0xae, 0xd0});     // wrfsbase rax
  a.bytes({0xb8, 0xff, 0, 0, 0, 0x31, 0xd2});  // mov eax, 0ffh; xor edx, edx
  a.absolute(0x48, {0x0f, 0xae}, 5, 0);        // xrstor64 [block]
  a.absolute(0x48, {0x8b}, 4, offsetof(Block, stack_end));
  a.absolute(0x48, {0xff}, 6, offsetof(Block, rflags));  // push
  a.bytes({0x9d});                                       // popfq
  for (unsigned reg = 0; reg < 16; ++reg) a.absolute(0x48, {0x8b}, reg, offsetof(Block, gpr) + 8 * reg);
  a.absolute(0x48, {0xff}, 4, offsetof(Block, target));  // jmp
  landing = reinterpret_cast<uint64_t>(a.here());
  a.bytes({0xfc, 0xdb, 0xe3});                                // cld; fninit
  a.absolute(0x48, {0x0f, 0xae}, 2, offsetof(Block, mxcsr));  // ldmxcsr
  a.absolute(0x48, {0x8b}, 4, offsetof(Block, host_rsp));
  a.bytes({0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3});
}

}  // namespace

// At the start of the shared memory; code and data follow, page-aligned.
struct Native::Shared {
  uint64_t rip = 0;
  State state;
  int vector = -1;
  uint64_t error = 0, cr2 = 0;
};

namespace {

uint64_t landing_address;
State* result;
int* result_vector;
uint64_t *result_error, *result_cr2;

// FS is the case's, not the C library's, until it has been put back.
__attribute__((no_stack_protector, no_sanitize("address", "undefined", "thread"))) void on_signal(int number,
                                                                                                  siginfo_t*,
                                                                                                  void* context) {
  const Block* block = reinterpret_cast<const Block*>(block_address);
  asm volatile("wrfsbase %0" : : "r"(block->host_fs));
  auto* machine = &static_cast<ucontext_t*>(context)->uc_mcontext;
  greg_t* regs = machine->gregs;
  static constexpr int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  for (unsigned i = 0; i < 16; ++i) result->gpr[i] = static_cast<uint64_t>(regs[order[i]]);
  result->rip = static_cast<uint64_t>(regs[REG_RIP]);
  result->rflags = static_cast<uint64_t>(regs[REG_EFL]);
  *result_vector = number == SIGALRM ? -1 : static_cast<int>(regs[REG_TRAPNO]);
  *result_error = static_cast<uint64_t>(regs[REG_ERR]);
  *result_cr2 = static_cast<uint64_t>(regs[REG_CR2]);
  __builtin_memcpy(result->xsave.data(), machine->fpregs, xsave_size);
  regs[REG_RIP] = static_cast<greg_t>(landing_address);
  regs[REG_EFL] = 0x202;
}

[[noreturn]] void serve(int memfd, int requests, int answers, State& state, int& vector, uint64_t& error, uint64_t& cr2,
                        const uint64_t& rip, size_t code_at, size_t data_at) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const auto map = [&](uint64_t address, size_t size, int protection, int flags, int fd, size_t offset) {
    if (mmap(reinterpret_cast<void*>(address), size, protection, flags | MAP_FIXED_NOREPLACE, fd,
             static_cast<off_t>(offset)) != reinterpret_cast<void*>(address))
      _exit(3);
  };
  map(block_address, block_size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  map(code_address, code_size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, memfd, code_at);
  map(data_address, data_size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, data_at);
  auto* block = reinterpret_cast<Block*>(block_address);
  emit_stub(reinterpret_cast<uint8_t*>(block_address + stub_offset), landing_address);
  result = &state, result_vector = &vector, result_error = &error, result_cr2 = &cr2;
  stack_t stack{};
  stack.ss_size = 1 << 17;
  stack.ss_sp = std::malloc(stack.ss_size);
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (const int number : {SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGTRAP, SIGALRM}) sigaction(number, &action, nullptr);
  sigset_t all;
  sigemptyset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  uint8_t token = 0;
  while (read(requests, &token, 1) == 1) {
    std::memcpy(block->xsave.data(), state.xsave.data(), xsave_size);
    std::memset(block->xsave.data() + xsave_size, 0, block->xsave.size() - xsave_size);
    std::memcpy(block->gpr, state.gpr.data(), sizeof block->gpr);
    block->rflags = state.rflags;
    block->fs_base = state.fs_base;
    block->gs_base = state.gs_base;
    block->target = rip;
    block->mxcsr = 0x1f80;
    block->stack_end = block_address + offsetof(Block, stack) + sizeof block->stack;
    const itimerval limit{.it_interval = {}, .it_value = {.tv_sec = 2, .tv_usec = 0}}, off{};
    setitimer(ITIMER_REAL, &limit, nullptr);
    reinterpret_cast<void (*)()>(block_address + stub_offset)();
    setitimer(ITIMER_REAL, &off, nullptr);
    if (write(answers, &token, 1) != 1) break;
  }
  _exit(0);
}

}  // namespace

Result<std::unique_ptr<Native>> Native::create() {
  if ((getauxval(AT_HWCAP2) & 2) == 0) return fail("the host's kernel does not let programs write FS and GS bases");
  std::unique_ptr<Native> native{new Native};
  native->memfd_ = Fd{memfd_create("cpu-fuzz", MFD_CLOEXEC)};
  constexpr size_t size = (sizeof(Shared) + 4095) / 4096 * 4096;
  if (!native->memfd_.valid() || ftruncate(native->memfd_.get(), static_cast<off_t>(size + code_size + data_size)) != 0)
    return fail_errno(errno, "create shared memory");
  void* at = mmap(nullptr, size + code_size + data_size, PROT_READ | PROT_WRITE, MAP_SHARED, native->memfd_.get(), 0);
  if (at == MAP_FAILED) return fail_errno(errno, "map shared memory");
  native->shared_ = new (at) Shared;
  if (auto started = native->start(); !started) return std::unexpected(started.error());
  return native;
}

Result<> Native::start() {
  int down[2], up[2];
  if (pipe(down) != 0 || pipe(up) != 0) return fail_errno(errno, "make pipes to the child");
  constexpr size_t size = (sizeof(Shared) + 4095) / 4096 * 4096;
  const pid_t child = fork();
  if (child < 0) return fail_errno(errno, "start the child");
  if (child == 0) {
    close(down[1]);
    close(up[0]);
    serve(memfd_.get(), down[0], up[1], shared_->state, shared_->vector, shared_->error, shared_->cr2, shared_->rip,
          size, size + code_size);
  }
  close(down[0]);
  close(up[1]);
  requests_ = Fd{down[1]};
  answers_ = Fd{up[0]};
  child_ = child;
  return {};
}

void Native::end() {
  requests_ = Fd{};
  answers_ = Fd{};
  if (child_ > 0) {
    kill(child_, SIGKILL);  // our own child: cannot have been reused before waitpid()
    waitpid(child_, nullptr, 0);
  }
  child_ = -1;
}

Native::~Native() {
  end();
  constexpr size_t size = (sizeof(Shared) + 4095) / 4096 * 4096;
  if (shared_ != nullptr) munmap(shared_, size + code_size + data_size);
}

void Native::renew() {
  end();
  (void)start();  // without a child run() tells nothing
}

// The child is a copy of this process, so this one's mappings are asked for.
bool Native::own_memory(uint64_t address) {
  unsigned char resident = 0;
  return address >> 47 == 0 && mincore(reinterpret_cast<void*>(address & ~uint64_t{4095}), 1, &resident) == 0;
}

Outcome Native::run(const Case& test) {
  constexpr size_t size = (sizeof(Shared) + 4095) / 4096 * 4096;
  auto* bytes = reinterpret_cast<uint8_t*>(shared_);
  std::memset(bytes + size, filler, code_size);
  std::memcpy(bytes + size + (test.state.rip - code_address), test.code.data(), test.code.size());
  std::memcpy(bytes + size + code_size, test.state.data.data(), data_size);
  shared_->state = test.state;
  shared_->rip = test.state.rip;
  uint8_t token = 1;
  Outcome outcome;
  if (write(requests_.get(), &token, 1) != 1 || read(answers_.get(), &token, 1) != 1) {
    renew();
    return outcome;
  }
  outcome.state = shared_->state;
  std::memcpy(outcome.state.data.data(), bytes + size + code_size, data_size);
  outcome.vector = shared_->vector;
  outcome.error = shared_->error;
  outcome.cr2 = shared_->cr2;
  return outcome;
}

}  // namespace caisson::cpufuzz
