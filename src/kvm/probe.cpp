#include "kvm/probe.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <iterator>
#include <optional>
#include <utility>

#include <linux/kvm.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm/device.h"
#include "kvm/interrupter.h"
#include "kvm/shared_run.h"
#include "x86/registers.h"

namespace caisson::kvm {
namespace {

// The loop is looked at after each of these; the first entries of a guest are slow everywhere.
constexpr uint64_t windows_ns[] = {250'000, 250'000, 500'000, 1'000'000, 2'000'000, 4'000'000, 8'000'000};
// Less than this part of least_speed is beyond hope, when two windows in a row say so that agree to a factor of two and
// are no mere beginnings: where entering the guest takes as long as a window, its loop gets nowhere.
constexpr double hope = 0.25;
constexpr uint64_t few_rounds = 64;

uint64_t read_clock(clockid_t id) {
  timespec now{};
  ::clock_gettime(id, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Page tables and code of the scratch machine: the first 2 MiB mapped one to one.
struct Scratch {
  static constexpr size_t size = 4 * 4096;
  static constexpr uint64_t pml4 = 0, pdpt = 0x1000, pd = 0x2000, code = 0x3000;

  Scratch() : at(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (!valid()) return;
    put(pml4, pdpt | 3);
    put(pdpt, pd | 3);
    put(pd, 0x83);
    constexpr uint8_t loop[] = {0x48, 0xff, 0xc1, 0xeb, 0xfb};  // 1: inc rcx; jmp 1b
    std::memcpy(static_cast<uint8_t*>(at) + code, loop, sizeof loop);
  }
  ~Scratch() {
    if (valid()) ::munmap(at, size);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  [[nodiscard]] bool valid() const { return at != MAP_FAILED; }
  void put(uint64_t address, uint64_t value) const {
    std::memcpy(static_cast<uint8_t*>(at) + address, &value, sizeof value);
  }

  void* at;
};
constexpr uint64_t instructions_per_round = 2;

kvm_segment flat(uint16_t selector, bool code) {
  kvm_segment segment{};
  segment.limit = 0xffff'ffff;
  segment.selector = selector;
  segment.type = code ? 11 : 3;
  segment.present = 1;
  segment.s = 1;
  segment.l = code;
  segment.db = !code;
  segment.g = 1;
  return segment;
}

bool enter_long_mode(int vcpu) {
  using namespace x86;
  kvm_sregs sregs{};
  if (control(vcpu, KVM_GET_SREGS, &sregs) != 0) return false;
  sregs.cs = flat(8, true);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat(16, false);
  sregs.cr0 = cr0::pe | cr0::et | cr0::ne | cr0::wp | cr0::pg;
  sregs.cr3 = Scratch::pml4;
  sregs.cr4 = cr4::pae;
  sregs.efer = efer::lme | efer::lma;
  kvm_regs regs{};
  regs.rip = Scratch::code;
  regs.rflags = rflags::fixed;
  return control(vcpu, KVM_SET_SREGS, &sregs) == 0 && control(vcpu, KVM_SET_REGS, &regs) == 0;
}

class ScratchMachine {
 public:
  [[nodiscard]] Result<> create(const Fd& fd);
  [[nodiscard]] Result<uint64_t> speed();

 private:
  Scratch memory_;
  Fd vm_, vcpu_;
  std::optional<SharedRun> run_;
};

Result<> ScratchMachine::create(const Fd& fd) {
  Fd copy{::dup(fd.get())};
  if (!copy.valid()) return fail_errno(errno, "/dev/kvm: copy its descriptor");
  auto device = KvmDevice::create(std::move(copy));
  if (!device) return std::unexpected(device.error());
  if (!memory_.valid()) return fail_errno(errno, "/dev/kvm: memory for a measurement");
  auto vm = device->create_vm();
  if (!vm) return std::unexpected(vm.error());
  vm_ = std::move(*vm);
  // Where Intel's processors keep their pages for real mode, should they want any.
  (void)control(vm_.get(), KVM_SET_TSS_ADDR, 0xfffb'd000ul);
  kvm_userspace_memory_region region{};
  region.memory_size = Scratch::size;
  region.userspace_addr = reinterpret_cast<uint64_t>(memory_.at);
  if (control(vm_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) {
    return fail_errno(errno, "/dev/kvm: memory of a scratch machine; use --engine jit");
  }
  vcpu_ = Fd{control(vm_.get(), KVM_CREATE_VCPU, 0)};
  if (!vcpu_.valid()) return fail_errno(errno, "/dev/kvm: CPU of a scratch machine; use --engine jit");
  auto run = SharedRun::create(vcpu_.get(), device->run_size());
  if (!run) return std::unexpected(run.error());
  run_ = std::move(*run);
  if (!enter_long_mode(vcpu_.get())) return fail_errno(errno, "/dev/kvm: set up a scratch machine; use --engine jit");
  return {};
}

Result<uint64_t> ScratchMachine::speed() {
  install_kick_signal();
  const Interrupter interrupter;
  if (!interrupter.made()) return fail_errno(errno, "a timer for measuring /dev/kvm");
  double best = 0, last = 0;
  uint64_t rounds = 0;
  for (size_t i = 0; i < std::size(windows_ns); ++i) {
    interrupter.arm(windows_ns[i]);
    // Time in which the host ran something else does not count.
    const uint64_t start = read_clock(CLOCK_THREAD_CPUTIME_ID);
    // Any exit but that of the timer's signal means that it cannot run two plain instructions.
    if (call(vcpu_.get(), KVM_RUN, 0) == 0) {
      return fail("/dev/kvm: a plain loop in ring 0 ends with exit {}; use --engine jit",
                  uint32_t{(*run_)->exit_reason});
    }
    if (errno != EINTR) return fail_errno(errno, "/dev/kvm: run a plain loop in ring 0; use --engine jit");
    const uint64_t spent = read_clock(CLOCK_THREAD_CPUTIME_ID) - start;
    kvm_regs regs{};
    if (control(vcpu_.get(), KVM_GET_REGS, &regs) != 0) return fail_errno(errno, "/dev/kvm: read the count of a loop");
    const uint64_t done = regs.rcx - std::exchange(rounds, regs.rcx);
    const double speed =
        static_cast<double>(done * instructions_per_round) * 1e9 / static_cast<double>(std::max<uint64_t>(spent, 1));
    best = std::max(best, speed);
    const double before = std::exchange(last, done < few_rounds ? 0 : speed);
    const bool steady = last < 2 * before && before < 2 * last;
    const double wanted = static_cast<double>(least_speed);
    if (best >= wanted || (steady && best < hope * wanted)) break;
  }
  return static_cast<uint64_t>(best);
}

}  // namespace

Result<uint64_t> ring0_speed(const Fd& fd) {
  ScratchMachine machine;
  if (auto done = machine.create(fd); !done) return std::unexpected(done.error());
  return machine.speed();
}

namespace {

Verdict verdict_on(const Result<uint64_t>& speed) {
  if (!speed) return {false, speed.error().message};
  const auto millions = [](uint64_t count) { return static_cast<double>(count) / 1e6; };
  if (*speed < least_speed) {
    return {false, fmt::format("/dev/kvm runs ring 0 at {:.1f} million instructions a second, less than {:.0f}: it has "
                               "no hardware virtualization behind it",
                               millions(*speed), millions(least_speed))};
  }
  return {true, fmt::format("/dev/kvm runs ring 0 at {:.0f} million instructions a second", millions(*speed))};
}

}  // namespace

Verdict examine(const Fd& device) { return verdict_on(ring0_speed(device)); }

void examine(const Fd& device, const std::function<void(Verdict)>& tell) {
  ScratchMachine machine;
  const auto made = machine.create(device);
  tell(verdict_on(made ? machine.speed() : std::unexpected(made.error())));
}

}  // namespace caisson::kvm
