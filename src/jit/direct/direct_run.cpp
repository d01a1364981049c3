// What happens while user code runs directly: entering it, and serving what stops it.
#include <algorithm>
#include <cstring>
#include <ctime>
#include <utility>

#include "jit/direct/direct.h"
#include "jit/direct/sensitive_code.h"
#include "jit/fpu.h"
#include "jit/interpret/interrupt_delivery.h"
#include "jit/mmu/code_pages.h"
#include "jit/mmu/mmu.h"
#include "jit/mmu/page_walk.h"
#include "jit/mmu/used_page.h"
#include "jit/profile.h"

namespace caisson::jit {
namespace {

using namespace x86;
using Stop = HostProcess::Stop;

constexpr uint16_t user_code = HostProcess::user_code, user_data = HostProcess::user_data;
// Of RFLAGS, what user code changes by itself.
constexpr uint64_t user_flags = x86::rflags::status | rflags::tf | rflags::df | rflags::nt | rflags::ac | rflags::id;
// Of those, what can be handed to a traced process.
constexpr uint64_t loaded_flags = rflags::status | rflags::df | rflags::nt | rflags::ac;
constexpr size_t header_at = 512, legacy_unused_at = 464;
constexpr size_t fpu_bytes = 2696;  // legacy region, header, AVX, AVX-512 (vol. 1, 13.4 and CPUID leaf 0Dh)
// How many pages around one that is asked for are brought in with it, if they were used before.
constexpr uint64_t window = 16 * page_size;
// When to look at whether it pays: after so many stops that were for more than a mapping, or so much time.
constexpr unsigned stops_together = 64;
constexpr uint64_t time_together = 30'000'000;
// The translator takes so many times as long as the host's CPU. A stop's part in the process's own time, which the
// host's kernel takes, in nanoseconds.
constexpr uint64_t translator_factor = 4, stop_cpu = 3'500;
// The host allows a process 65530 mappings, unless somebody changed that.
constexpr size_t max_pages = 30000;

uint64_t now_ns(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

// Whether everything that user code can see or change without stopping is as on the host.
bool Direct::fits() const {
  const Cpu& cpu = cpu_;
  constexpr uint64_t must = rflags::interrupt,
                     must_not = rflags::tf | rflags::iopl | rflags::vm | rflags::vif | rflags::vip;
  if ((cpu.rflags & (must | must_not)) != must || cpu.interrupt_shadow != 0 || (cpu.dr[7] & 0xff) != 0) return false;
  if ((cpu.cr0 & (cr0::ts | cr0::em)) != 0) return false;
  constexpr uint64_t controls = cr4::osfxsr | cr4::osxsave | cr4::fsgsbase;
  if ((cpu.cr4 & controls) != controls || cpu.xcr0 != fpu_components() || cpu.model->name() != "host") return false;
  if (cpu.segments[Cs].selector != user_code || cpu.segments[Ss].selector != user_data) return false;
  for (const unsigned segment : {Ds, Es, Fs, Gs}) {
    if (cpu.segments[segment].selector != 0) return false;
  }
  return cpu.segments[Fs].base < HostProcess::end && cpu.segments[Gs].base < HostProcess::end &&
         cpu.rip < HostProcess::end;
}

bool Direct::load(Space& space) {
  const Cpu& cpu = cpu_;
  user_regs_struct& r = registers_;
  r = {};
  r.rax = cpu.gpr[Rax];
  r.rcx = cpu.gpr[Rcx];
  r.rdx = cpu.gpr[Rdx];
  r.rbx = cpu.gpr[Rbx];
  r.rsp = cpu.gpr[Rsp];
  r.rbp = cpu.gpr[Rbp];
  r.rsi = cpu.gpr[Rsi];
  r.rdi = cpu.gpr[Rdi];
  r.r8 = cpu.gpr[R8];
  r.r9 = cpu.gpr[R9];
  r.r10 = cpu.gpr[R10];
  r.r11 = cpu.gpr[R11];
  r.r12 = cpu.gpr[R12];
  r.r13 = cpu.gpr[R13];
  r.r14 = cpu.gpr[R14];
  r.r15 = cpu.gpr[R15];
  r.rip = cpu.rip;
  r.eflags = (cpu.rflags & loaded_flags) | rflags::interrupt | rflags::fixed;
  r.cs = user_code;
  r.ss = user_data;
  r.fs_base = cpu.segments[Fs].base;
  r.gs_base = cpu.segments[Gs].base;
  const std::span<const uint8_t> fpu{cpu.xsave.data(), fpu_bytes};
  if (!std::ranges::equal(fpu, space.fpu)) {
    if (!space.process->load_fpu(fpu)) return false;
    space.fpu.assign(fpu.begin(), fpu.end());
  }
  return space.process->load(r);
}

bool Direct::store(Space& space) {
  Cpu& cpu = cpu_;
  const user_regs_struct& r = registers_;
  cpu.gpr = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
             r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
  cpu.rip = r.rip;
  // (RF is of no consequence without breakpoints, and gone after an instruction.)
  cpu.rflags = (cpu.rflags & ~(user_flags | rflags::rf)) | (r.eflags & user_flags);
  cpu.segments[Fs].base = r.fs_base;
  cpu.segments[Gs].base = r.gs_base;
  // (A program may load selectors; what it can load here it can load there, or finds out otherwise.)
  cpu.segments[Ds].selector = static_cast<uint16_t>(r.ds);
  cpu.segments[Es].selector = static_cast<uint16_t>(r.es);
  cpu.segments[Fs].selector = static_cast<uint16_t>(r.fs);
  cpu.segments[Gs].selector = static_cast<uint16_t>(r.gs);
  if (!space.process->store_fpu({cpu.xsave.data(), fpu_bytes})) return false;
  // Not the guest's: what the kernel notes in the unused bytes, components that the guest has not, addresses of x87
  // instructions (which this engine never tells).
  std::fill(cpu.xsave.begin() + 6, cpu.xsave.begin() + 24, uint8_t{0});
  std::fill(cpu.xsave.begin() + legacy_unused_at, cpu.xsave.begin() + header_at, uint8_t{0});
  uint64_t components = 0;
  std::memcpy(&components, &cpu.xsave[header_at], sizeof components);
  components &= fpu_components();
  std::memcpy(&cpu.xsave[header_at], &components, sizeof components);
  space.fpu.assign(cpu.xsave.begin(), cpu.xsave.begin() + fpu_bytes);
  return true;
}

// Brings in the page, which the guest's tables allow so, and what was used around it.
void Direct::map_around(Space& space, uint64_t linear, bool execute) {
  if (space.pages.size() > max_pages) {
    // Begins anew rather than finds out what is used least.
    space.pages.clear();
    space.linear_pages.clear();
    space.process->unmap_all();
  }
  const uint64_t first = std::max(linear & ~(window - 1), HostProcess::lowest);
  const uint64_t last = std::min((linear & ~(window - 1)) + window, HostProcess::end);
  struct Run {
    uint64_t linear = 0, offset = 0, size = 0;
    HostProcess::Rights rights;
  } run;
  const auto end_run = [&] {
    if (run.size != 0) space.process->map(run.linear, run.offset, run.size, run.rights);
    run = {};
  };
  for (uint64_t at = first; at < last; at += page_size) {
    const auto known = space.pages.find(at);
    const mmu::UsedPage seen = mmu::used_page(cpu_, at);
    const bool asked = at == linear;
    if (!seen.used || (known != space.pages.end() && !asked) || at == space.process->own_page() ||
        !cpu_.memory->contains(seen.gpa, page_size)) {
      end_run();
      continue;
    }
    HostProcess::Rights rights;
    rights.write = seen.writable && claim_for_writing(cpu_, seen.gpa);
    // What can be written is seldom code: that has to be asked for.
    const bool was_executable = known != space.pages.end() && known->second.executable;
    bool sensitive = false;
    if (seen.executable && (was_executable || (asked ? execute : !seen.writable))) {
      sensitive = !was_executable && has_sensitive_code({cpu_.memory->base() + seen.gpa, page_size});
      rights.execute = !sensitive;
    }
    set_page(space, at,
             {.gpa = seen.gpa, .writable = rights.write, .executable = rights.execute, .sensitive = sensitive});
    const uint64_t offset = cpu_.memory->page_index(seen.gpa) * page_size;
    const bool goes_on = run.size != 0 && run.linear + run.size == at && run.offset + run.size == offset &&
                         run.rights.write == rights.write && run.rights.execute == rights.execute;
    if (!goes_on) end_run();
    if (run.size == 0) run = {.linear = at, .offset = offset, .size = 0, .rights = rights};
    run.size += page_size;
  }
  end_run();
}

bool Direct::at_sensitive_code(const Space& space) const {
  const auto page = space.pages.find(cpu_.rip & ~(page_size - 1));
  return page != space.pages.end() && page->second.sensitive;
}

// As long as it stands on such a page, but not for long: what stays there is for the translator.
StepResult Direct::interpret_page(Space& space) {
  constexpr unsigned most = 400;
  for (unsigned i = 0; i < most; ++i) {
    const StepResult result = step(cpu_);
    if (result != StepResult::Done || cpu_.exit_request.load(std::memory_order_relaxed) != 0) return result;
    if (active_ != &space || !cpu_.user_64() || !at_sensitive_code(space)) break;
  }
  return StepResult::Done;
}

// The program touched `address` and cannot: makes that it can, if nothing but a mapping is missing.
Direct::Served Direct::serve(Space& space, uint64_t address) {
  constexpr unsigned longest_instruction = 15;
  const uint64_t linear = address & ~(page_size - 1);
  if (linear < HostProcess::lowest || linear >= HostProcess::end || linear == space.process->own_page())
    return Served::No;
  auto known = space.pages.find(linear);
  const auto is_known = [&] { return known != space.pages.end(); };
  bool mapped = false;
  if (is_known() && known->second.sensitive && linear == (registers_.rip & ~(page_size - 1))) return Served::No;
  if (address - registers_.rip < longest_instruction && !(is_known() && known->second.executable)) {
    CodePage code;
    if (mmu::code_page(cpu_, address, code) && code.user && code.host != nullptr) {
      map_around(space, linear, true);
      known = space.pages.find(linear);
      mapped = is_known() && known->second.executable;
    }
    cpu_.fault = {};
    // (Or it was data near the code: the interpreter does that as well.)
    if (!mapped && is_known() && known->second.sensitive)
      return space.process->flush(HostProcess::Registers::Keep) ? Served::No : Served::Failed;
  }
  if (!mapped) {
    if (is_known() && known->second.writable) return Served::No;
    const mmu::Filled filled = mmu::fill(cpu_, linear, is_known() ? Access::Write : Access::Read, TlbMode::User);
    cpu_.fault = {};  // the interpreter finds it again
    if (!filled.ok || !filled.ram || !cpu_.memory->contains(filled.gpa, 1)) return Served::No;
    if (is_known() && !filled.direct) return Served::No;
    const bool was_known = is_known();
    map_around(space, linear, false);
    known = space.pages.find(linear);
    // (Another CPU may have changed the tables meanwhile.)
    if (!is_known() || (was_known && !known->second.writable)) return Served::No;
  }
  return space.process->flush(HostProcess::Registers::Keep) ? Served::Yes : Served::Failed;
}

// On a busy host each stop waits twice until somebody else's time is over: then the translator, which never waits for
// itself, takes over for a while, whatever the program does.
void Direct::host_is_busy(bool busy) {
  constexpr uint64_t first_pause = 250'000'000, longest_pause = 8'000'000'000;
  pause_ = busy ? std::clamp(4 * pause_, first_pause, longest_pause) : 0;
  not_before_ = busy ? now_ns() + pause_ : 0;
}

bool Direct::waits() { return not_before_ != 0 && patience_ != 0 && now_ns() < not_before_; }

// False: the translator would be faster.
bool Direct::pays(Space& space) {
  if (space.served_by_others < stops_together && space.wall < time_together) return true;
  const uint64_t cpu = space.process->cpu_ns(), resumes = space.process->resumes();
  const uint64_t used = cpu - std::min(space.used, cpu), own = stop_cpu * (resumes - space.resumes);
  const uint64_t wall = space.wall, useful = used - std::min(own, used);
  const uint64_t here = now_ns(CLOCK_THREAD_CPUTIME_ID), both = used + (here - std::exchange(thread_used_, here));
  const bool pays = wall < translator_factor * useful;
  space.served_by_others = 0;
  space.wall = 0;
  space.used = cpu;
  space.resumes = resumes;
  if (pays) candidate().needed = patience_;
  if (wall > 2 * both && wall >= time_together / 8) {
    same_cpu_.move();
    host_is_busy(!pays);
  } else if (pays) {
    host_is_busy(false);
  }
  return pays || patience_ == 0;
}

StepResult Direct::handle(const HostProcess::Stopped& stopped) {
  Cpu& cpu = cpu_;
  switch (stopped.why) {
    case Stop::SystemCall: {
      // SYSCALL has changed RCX and R11 as the guest's would; where to is the interpreter's business.
      constexpr unsigned length = 2;
      std::array<uint8_t, 15> bytes{};
      cpu.rip -= length;
      const unsigned size = mmu::fetch(cpu, cpu.rip, bytes.data());
      cpu.fault = {};
      const bool known =
          size >= length && ((bytes[0] == 0x0f && bytes[1] == 0x05) || (bytes[0] == 0xcd && bytes[1] == 0x80));
      if (known) {
        cpu.gpr[Rax] = registers_.orig_rax;
        break;
      }
      // SYSENTER, which 64-bit programs have no use for, and which loses RIP.
      cpu.rip += length;
      raise(cpu, Ud);
      return deliver_fault(cpu);
    }
    case Stop::VsyscallPage: {
      // The host's kernel has returned from there, and done nothing.
      cpu.gpr[Rsp] -= 8;
      cpu.rip = stopped.address;
      break;
    }
    case Stop::Trap: {
      // INT3 and INT1 have come to their end; the interpreter does them again.
      std::array<uint8_t, 15> bytes{};
      const auto byte_at = [&](uint64_t linear) {
        const unsigned size = mmu::fetch(cpu, linear, bytes.data());
        cpu.fault = {};
        return size == 0 ? uint8_t{0} : bytes[0];
      };
      // POPF has set TF, and one more instruction has run (vol. 3, 17.3.1.4).
      if (stopped.debug && (registers_.eflags & rflags::tf) != 0) {
        return deliver_debug_trap(cpu, 1u << 14);
      }
      const uint8_t last = byte_at(cpu.rip - 1);
      cpu.rip -= last == 0xcc || last == 0xf1 ? 1 : 2;
      break;
    }
    default: break;
  }
  return step(cpu);
}

// What has changed since user code ran last, and its registers. False: it cannot go on here.
bool Direct::prepare(Space& space) {
  take_revoked();
  if (space.stale) look_again(space);
  if (space.missed != no_page && !space.pages.contains(space.missed))
    map_around(space, space.missed, space.missed_code);
  space.missed = no_page;
  return space.process->flush(HostProcess::Registers::Spoil) && load(space);
}

StepResult Direct::run() {
  const ProfileScope profiled(cpu_, Doing::Direct);
  Space& space = *active_;
  same_cpu_.stay();
  if (space.cpu != same_cpu_.cpu()) {
    space.cpu = same_cpu_.cpu();
    run_on(space.process->id(), space.cpu);
  }
  const uint64_t start = now_ns();
  const StepResult result = run(space);
  // (It may be gone.)
  if (active_ != &space || lost_) return result;
  space.wall += now_ns() - start;
  if (!pays(space)) {
    give_up(space);
    same_cpu_.leave();
  }
  return result;
}

StepResult Direct::run(Space& space) {
  Cpu& cpu = cpu_;
  if (!prepare(space)) {
    give_up(space);
    return StepResult::Done;
  }
  HostProcess& process = *space.process;
  const uint64_t start = now_ns();
  for (;;) {
    running_.store(&process, std::memory_order_seq_cst);
    HostProcess::Stopped stopped{.why = Stop::Woken};
    if (cpu.exit_request.load(std::memory_order_seq_cst) == 0) stopped = process.run();
    running_.store(nullptr, std::memory_order_seq_cst);
    if (stopped.why == Stop::Gone || !process.store(registers_)) {
      lost_ = true;
      return StepResult::Done;
    }
    if (cpu.profile != nullptr)
      cpu.profile->count(static_cast<Profile::Event>(Profile::direct_woken + static_cast<unsigned>(stopped.why)));
    if (stopped.why == Stop::Woken) {
      if (cpu.exit_request.load(std::memory_order_relaxed) == 0) continue;
      lost_ = !store(space);
      return StepResult::Done;
    }
    if (stopped.why == Stop::Fault && stopped.has_address) {
      const Served served = serve(space, stopped.address);
      if (served == Served::Yes) {
        if (now_ns() - start < time_together) continue;
        lost_ = !store(space);
        return StepResult::Done;  // to see whether it pays
      }
      if (served == Served::Failed) {
        // The registers are still here.
        lost_ = !store(space);
        give_up(space);
        return StepResult::Done;
      }
    }
    if (!store(space)) {
      lost_ = true;
      return StepResult::Done;
    }
    ++space.served_by_others;
    if (stopped.why == Stop::Fault && stopped.has_address && stopped.address < HostProcess::end) {
      space.missed = stopped.address & ~(page_size - 1);
      space.missed_code = stopped.address == registers_.rip;
    }
    const StepResult result = at_sensitive_code(space) ? interpret_page(space) : handle(stopped);
    // (The step may have ended the address space.)
    if (result != StepResult::Done || active_ != &space || !cpu.user_64() || !fits() || at_sensitive_code(space))
      return result;
    if (cpu.exit_request.load(std::memory_order_relaxed) != 0) return result;
    if (space.served_by_others >= stops_together) return result;  // to see whether it pays
    if (!prepare(space)) {
      give_up(space);
      return StepResult::Done;
    }
  }
}

}  // namespace caisson::jit
