// The state of one virtual CPU in the jit engine: the guest's registers, what is derived from them, and the tables that
// translated code reads directly (through the host's RSP, see translate/).
//   Threads  owned by the vCPU's thread; only the members of `Cpu::Shared` are touched by others.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/interrupt.h"
#include "engine/cpu_state.h"
#include "jit/mmu/walk_memory.h"
#include "jit/translate/jump_memory.h"
#include "memory/guest_memory.h"
#include "x86/cpu_model.h"
#include "x86/registers.h"

namespace caisson::jit {

class JitEngine;
class Profile;
class DecodeCache;
class TrialLog;
class Direct;
class Mirror;

// The address-translation caches of one access mode; translated code looks entries up by bits 12.. of the linear
// address.
inline constexpr unsigned tlb_bits = 10;
inline constexpr unsigned tlb_entries = 1u << tlb_bits;
inline constexpr uint64_t invalid_tag = 1;  // never equals a page-aligned address

struct Tlb {
  // Linear page address, or invalid_tag. The write tag is set only where a plain store may go straight to RAM:
  // writable, dirty bit set, no translated code on the page.
  std::array<uint64_t, tlb_entries> read_tag;
  std::array<uint64_t, tlb_entries> write_tag;
  std::array<uint64_t, tlb_entries> addend;  // host address = linear address + addend
  std::array<uint8_t, tlb_entries> global;   // survives flushes of non-global entries
};

// Which translation cache data accesses use.
enum class TlbMode : uint8_t {
  Supervisor = 0,      // CPL 0-2, user pages forbidden (SMAP and AC = 0); all implicit supervisor accesses
  SupervisorUser = 1,  // CPL 0-2, user pages allowed
  User = 2,            // CPL 3
};

// The page of the stack, by TlbMode: what the translation cache says of it, kept for accesses through RSP. It is always
// readable and writable. Without one `page` is an address that is not canonical, and `addend` leads it to memory that
// faults on the host: the interpreter then finds the guest's fault.
struct StackPage {
  uint64_t page = 0;
  uint64_t addend = 0;
};

// A pending exception, set by whoever detects it; delivered by the interpreter.
struct Fault {
  bool raised = false;
  uint8_t vector = 0;
  bool has_error = false;
  uint32_t error = 0;
  uint64_t address = 0;  // goes to CR2 when a #PF is delivered
};

struct Segment {
  uint64_t base = 0;
  uint32_t limit = 0xffff;
  uint32_t attributes = 0;  // as in SegmentState
  uint16_t selector = 0;

  [[nodiscard]] unsigned type() const { return attributes & 15; }
  [[nodiscard]] bool code_or_data() const { return attributes & 1u << 4; }
  [[nodiscard]] unsigned dpl() const { return attributes >> 5 & 3; }
  [[nodiscard]] bool present() const { return attributes & 1u << 7; }
  [[nodiscard]] bool long_mode() const { return attributes & 1u << 13; }
  [[nodiscard]] bool big() const { return attributes & 1u << 14; }
  [[nodiscard]] bool granular() const { return attributes & 1u << 15; }
  [[nodiscard]] bool unusable() const { return attributes & 1u << 16; }
};

struct DescriptorTable {
  uint64_t base = 0;
  uint16_t limit = 0xffff;
};

// Where code is fetched from: one page.
struct CodePage {
  uint64_t linear = invalid_tag;
  Gpa gpa = 0;
  const uint8_t* host = nullptr;  // null: not RAM
  bool user = false;
  bool global = false;
  bool large = false;
};
inline constexpr unsigned code_page_entries = 2048, code_page_group = code_page_entries / 64;

// Where indirect branches find the translation of their target: one table per TlbMode, by bits 1.. of the target's
// address.
inline constexpr unsigned jump_bits = 12;
inline constexpr unsigned jump_entries = 1u << jump_bits;
struct JumpCache {
  struct Entry {
    uint64_t rip;  // linear
    const uint8_t* code;
  };
  std::array<Entry, jump_entries> entries;

  [[nodiscard]] static constexpr size_t index(uint64_t rip) { return rip >> 1 & (jump_entries - 1); }
  // An empty entry has an address that belongs into another: no branch, to whatever address, finds it.
  void drop(size_t index) { entries[index].rip = index == 0 ? 2 : 0; }
  void clear() {
    for (size_t i = 0; i < jump_entries; ++i) drop(i);
  }
};

// A filter for INVLPG: which large pages may be cached. A bit for each GiB (modulo 256) and for each 2 MiB (modulo
// 4096).
struct LargePages {
  std::array<uint64_t, 4> gib{};
  std::array<uint64_t, 64> mib2{};

  // `shift`: log2 of the page's size: 21, 22 (of 32-bit paging) or 30.
  void note(uint64_t linear, unsigned shift) {
    if (shift == 30) {
      gib[linear >> 36 & 3] |= uint64_t{1} << (linear >> 30 & 63);
    } else {
      const uint64_t bit = linear >> 21 & 63;
      mib2[linear >> 27 & 63] |= shift == 22 ? uint64_t{3} << (bit & ~uint64_t{1}) : uint64_t{1} << bit;
    }
  }
  [[nodiscard]] bool may_have_gib(uint64_t linear) const { return gib[linear >> 36 & 3] >> (linear >> 30 & 63) & 1; }
  [[nodiscard]] bool may_have_smaller(uint64_t linear) const {
    return mib2[linear >> 27 & 63] >> (linear >> 21 & 63) & 1;
  }
  [[nodiscard]] bool may_have(uint64_t linear) const { return may_have_gib(linear) || may_have_smaller(linear); }
};

inline constexpr size_t xsave_area_size = 16384 / 4;  // legacy, header, AVX, AVX-512: 2696 bytes; rounded up

struct alignas(64) Cpu {
  // --- read and written by translated code ---------------------------------------------------------------------------
  // (The first 128 bytes have the shortest addresses.)
  // Set by any thread to bring the vCPU out of translated code and out of HLT; the run loop clears it and looks at
  // `shared` and at interrupts.
  std::atomic<uint32_t> exit_request{0};
  uint32_t flags_ax = 0;  // guest status flags as LAHF and SETO AL leave them in AX, while not in EFLAGS
  // Linear address of the page that the running block of user code stands in: such blocks work at any address.
  uint64_t code_base = 0;
  std::array<StackPage, 3> stack_pages{};
  // The mirrored address space, see mmu/mirror.h: of its lower and its upper half the region that is used most (bits 40
  // and up of its addresses), and host address less linear address there.
  std::array<uint32_t, 2> mirror_region{};
  std::array<uint64_t, 2> mirror_addend{};
  uint64_t mirror_stack_back = 0;      // linear address less host address in the region of the stack
  uint64_t mirror_fs = 0;              // host address of the base of FS
  std::array<uint64_t, 12> windows{};  // addends that the running block has found, see translate/windows.cpp
  uint64_t scratch[4] = {};  // spill slots of translated code: effective address, RCX, branch target, one more
  std::array<uint64_t, 16> gpr{};
  uint64_t rip = 0xfff0;
  uint64_t rflags = 2;  // complete whenever C++ runs
  std::array<bool, 3> stack_pages_global{};
  // By bits 40 to 47 of a linear address: whether the region is mirrored; the addend, or one that leads to where
  // nothing is.
  std::array<bool, 256> mirror_valid{};
  std::array<uint64_t, 256> mirror_addends{};
  std::array<uint64_t, 256> mirror_stack_addends{};  // the same, with only the region of the stack
  alignas(64) std::array<uint8_t, 128> crossing{};   // copy of what a read across two pages finds
  Cpu* self = this;
  uint64_t host_rsp = 0;  // outside of translated code; that has RSP at the beginning of its Cpu
  uint32_t leave = 0;     // why translated code was left, see translate/stubs.h
  uint32_t leave_word = 0;
  uint64_t leave_detail = 0;
  uint64_t tsc_bias = 0;            // the machine's TSC less the host's
  bool interrupts_waiting = false;  // something is pending that could not be delivered so far
  bool fpu_live = false;            // the guest's x87/SSE/AVX state is in the host's registers, not in `xsave`
  uint8_t mirror_gs_half = 0;       // whose addend the host's GS has
  bool mirrored = false;            // 64-bit user code runs in the mode in which mirror_addends are used
  // Derived by update_mode():
  uint8_t code_bits = 16;  // 16, 32, 64
  uint8_t cpl = 0;
  TlbMode tlb_mode = TlbMode::SupervisorUser;
  bool stack_32 = false;   // SS.B (64-bit mode: stack pointer is always 64 bits)
  bool long_mode = false;  // EFER.LMA
  bool paging = false;
  std::array<Segment, 6> segments{};
  std::array<Tlb, 3> tlb{};
  std::array<JumpCache, 3> jumps;        // zeroed memory, which is not touched before it is used, see below
  std::array<uint64_t, 3> jumps_mode{};  // mode word of the code in each table
  // Whether a table may hold something that is not mapped globally: a switch of address spaces leaves the others alone.
  std::array<bool, 3> jumps_local{}, tlb_local{};
  std::array<CodePage, code_page_entries> code_pages{};
  uint64_t code_pages_local = 0;  // bit for each group that may have something not mapped globally
  JumpMemory jump_memory;
  bool code_noted = false;  // something was put into `jumps` or `jump_memory` since all was dropped
  WalkMemory walk_memory;
  LargePages large_pages;       // of which a piece is cached
  LargePages large_code_pages;  // of which code is

  // --- the rest of the guest's state ---------------------------------------------------------------------------------
  Segment ldtr{}, tr{};
  DescriptorTable gdtr{}, idtr{};
  uint64_t cr0 = 0x6000'0010, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0, xcr0 = 1;
  std::array<uint64_t, 4> pdpte{};
  std::array<uint64_t, 8> dr{0, 0, 0, 0, 0, 0, 0xffff'0ff0, 0x400};
  std::array<uint64_t, 64> msrs{};  // by x86::MsrSlot
  uint64_t tsc_offset = 0;
  Activity activity = Activity::Running;
  uint8_t interrupt_shadow = 0;  // 1 STI, 2 MOV SS: holds interrupts off until one more instruction has run
  bool nmi_blocked = false;
  Fault fault{};
  alignas(64) std::array<uint8_t, xsave_area_size> xsave{};

  // --- surroundings --------------------------------------------------------------------------------------------------
  GuestMemory* memory = nullptr;
  Direct* direct = nullptr;  // null: off
  Mirror* mirror = nullptr;  // null: off
  Bus* bus = nullptr;
  Clock* clock = nullptr;
  CpuInterrupts* interrupts = nullptr;
  const x86::CpuModel* model = nullptr;
  JitEngine* engine = nullptr;
  Profile* profile = nullptr;  // null: off
  TrialLog* trial = nullptr;   // set: a trial run whose writes are taken back, see lockstep.h
  uint64_t flushes = 0;        // of translation caches, of any kind
  unsigned index = 0;          // APIC id
  bool alone = true;           // no other vCPU runs guest code: split locks can be done (StepResult::NotAlone)
  uint64_t instructions = 0;   // interpreted so far
  std::unique_ptr<DecodeCache, void (*)(DecodeCache*)> interpreter{nullptr, nullptr};  // made at the first step

  // Zeroed memory of whole pages: large tables are not touched before they are used. Below the Cpu is the stack of what
  // translated code calls.
  static void* operator new(size_t size, std::align_val_t alignment);
  static void operator delete(void* memory, size_t size, std::align_val_t alignment);

  [[nodiscard]] bool user() const { return cpl == 3; }
  // Whether a linear address is in the half that kernels map globally.
  [[nodiscard]] bool upper_half(uint64_t linear) const { return linear >> (long_mode ? 63 : 31) & 1; }
  [[nodiscard]] bool user_64() const { return user() && code_bits == 64; }
  [[nodiscard]] uint64_t& msr(x86::MsrSlot slot) { return msrs[static_cast<size_t>(slot)]; }
};

// Recomputes what is derived from CR0, CR4, EFER, RFLAGS.{AC,VM}, CS and SS. To be called after any of them changed.
void update_mode(Cpu& cpu);

// Marks an exception; always returns false, so that `return raise(…)` reads well in functions that return success.
bool raise(Cpu& cpu, uint8_t vector);
bool raise(Cpu& cpu, uint8_t vector, uint32_t error);

}  // namespace caisson::jit
