#include "kvm/state.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include <linux/kvm.h>

#include "kvm/device.h"
#include "kvm/lists.h"

namespace caisson::kvm {
namespace {

using namespace x86;

constexpr size_t legacy_xsave = sizeof(XsaveArea);
constexpr size_t xstate_bv = 512;  // in the XSAVE header (SDM vol. 1, 13.4.2)

Result<> failed(const char* what) { return fail_errno(errno, std::string{"/dev/kvm: "} + what); }

SegmentState from_kvm(const kvm_segment& from) {
  return {.base = from.base,
          .limit = from.limit,
          .attributes = (from.type & 15u) | (from.s & 1u) << 4 | (from.dpl & 3u) << 5 | (from.present & 1u) << 7 |
                        (from.avl & 1u) << 12 | (from.l & 1u) << 13 | (from.db & 1u) << 14 | (from.g & 1u) << 15 |
                        (from.unusable & 1u) << 16,
          .selector = from.selector};
}

kvm_segment to_kvm(const SegmentState& from) {
  const auto bits = [&](unsigned low, unsigned count) {
    return static_cast<uint8_t>(from.attributes >> low & ((1u << count) - 1));
  };
  kvm_segment to{};
  to.base = from.base;
  to.limit = from.limit;
  to.selector = from.selector;
  to.type = bits(0, 4);
  to.s = bits(4, 1);
  to.dpl = bits(5, 2);
  to.present = bits(7, 1);
  to.avl = bits(12, 1);
  to.l = bits(13, 1);
  to.db = bits(14, 1);
  to.g = bits(15, 1);
  to.unusable = bits(16, 1);
  return to;
}

// kvm_regs in the order of CpuState::gpr.
constexpr __u64 kvm_regs::*gprs[16] = {&kvm_regs::rax, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rbx,
                                       &kvm_regs::rsp, &kvm_regs::rbp, &kvm_regs::rsi, &kvm_regs::rdi,
                                       &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10, &kvm_regs::r11,
                                       &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15};

// kvm_sregs and kvm_sregs2 have the same members up to the last ones.
constexpr __u64 pdptrs_valid = 1;  // KVM_SREGS2_FLAGS_PDPTRS_VALID

template <class Sregs>
void read_sregs(const Sregs& sregs, CpuState& state) {
  state.segments = {from_kvm(sregs.es), from_kvm(sregs.cs), from_kvm(sregs.ss),
                    from_kvm(sregs.ds), from_kvm(sregs.fs), from_kvm(sregs.gs)};
  state.ldtr = from_kvm(sregs.ldt);
  state.tr = from_kvm(sregs.tr);
  state.gdtr = {.base = sregs.gdt.base, .limit = sregs.gdt.limit};
  state.idtr = {.base = sregs.idt.base, .limit = sregs.idt.limit};
  state.cr0 = sregs.cr0;
  state.cr2 = sregs.cr2;
  state.cr3 = sregs.cr3;
  state.cr4 = sregs.cr4;
  state.efer = sregs.efer;
}

template <class Sregs>
void write_sregs(const CpuState& state, const CpuInterrupts& interrupts, Sregs& sregs) {
  sregs.es = to_kvm(state.segments[Es]);
  sregs.cs = to_kvm(state.segments[Cs]);
  sregs.ss = to_kvm(state.segments[Ss]);
  sregs.ds = to_kvm(state.segments[Ds]);
  sregs.fs = to_kvm(state.segments[Fs]);
  sregs.gs = to_kvm(state.segments[Gs]);
  sregs.ldt = to_kvm(state.ldtr);
  sregs.tr = to_kvm(state.tr);
  sregs.gdt.base = state.gdtr.base;
  sregs.gdt.limit = state.gdtr.limit;
  sregs.idt.base = state.idtr.base;
  sregs.idt.limit = state.idtr.limit;
  sregs.cr0 = state.cr0;
  sregs.cr2 = state.cr2;
  sregs.cr3 = state.cr3;
  sregs.cr4 = state.cr4;
  sregs.cr8 = interrupts.cr8();
  sregs.efer = state.efer;
  sregs.apic_base = interrupts.apic_base();
}

bool pae_paging(const CpuState& state) {
  return (state.cr0 & cr0::pg) != 0 && (state.cr4 & cr4::pae) != 0 && (state.efer & efer::lma) == 0;
}

Result<> get_sregs(int fd, const StateAbilities& abilities, CpuState& state) {
  if (!abilities.sregs2) {
    kvm_sregs sregs{};
    if (control(fd, KVM_GET_SREGS, &sregs) != 0) return failed("read segment and control registers");
    read_sregs(sregs, state);
    return {};
  }
  kvm_sregs2 sregs{};
  if (control(fd, KVM_GET_SREGS2, &sregs) != 0) return failed("read segment and control registers");
  read_sregs(sregs, state);
  if ((sregs.flags & pdptrs_valid) != 0) std::copy_n(sregs.pdptrs, 4, state.pdpte.begin());
  return {};
}

Result<> set_sregs(int fd, const StateAbilities& abilities, const CpuInterrupts& interrupts, const CpuState& state) {
  if (!abilities.sregs2) {
    kvm_sregs sregs{};
    write_sregs(state, interrupts, sregs);
    if (control(fd, KVM_SET_SREGS, &sregs) != 0) return failed("set segment and control registers");
    return {};
  }
  kvm_sregs2 sregs{};
  write_sregs(state, interrupts, sregs);
  if (pae_paging(state)) {
    sregs.flags = pdptrs_valid;
    std::copy(state.pdpte.begin(), state.pdpte.end(), sregs.pdptrs);
  }
  if (control(fd, KVM_SET_SREGS2, &sregs) != 0) return failed("set segment and control registers");
  return {};
}

Result<> get_xsave(int fd, const StateAbilities& abilities, CpuState& state) {
  auto area = std::make_unique<uint8_t[]>(abilities.xsave_size);
  const bool large = abilities.xsave_size > legacy_xsave;
  if (control(fd, large ? get_xsave_area2 : get_xsave_area, area.get()) != 0) return failed("read XSAVE state");
  // What is beyond the legacy size belongs to features that no model has.
  state.xsave.data.assign(area.get(), area.get() + legacy_xsave);
  return {};
}

Result<> set_xsave(int fd, const StateAbilities& abilities, const CpuState& state) {
  auto area = std::make_unique<uint8_t[]>(abilities.xsave_size);
  if (state.xsave.data.size() > legacy_xsave) {
    return fail("CPU state has {} bytes of XSAVE state, this engine keeps {}", state.xsave.data.size(), legacy_xsave);
  }
  std::copy(state.xsave.data.begin(), state.xsave.data.end(), area.get());
  uint64_t components;
  std::memcpy(&components, area.get() + xstate_bv, sizeof components);
  components &= abilities.xcr0 | 3;
  std::memcpy(area.get() + xstate_bv, &components, sizeof components);
  if (control(fd, set_xsave_area, area.get()) != 0) return failed("set XSAVE state");
  return {};
}

Result<> set_events(int fd, const CpuState& state) {
  kvm_vcpu_events events{};
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  events.nmi.masked = state.nmi_blocked;
  events.interrupt.shadow = state.interrupt_shadow == 1   ? KVM_X86_SHADOW_INT_STI
                            : state.interrupt_shadow != 0 ? KVM_X86_SHADOW_INT_MOV_SS
                                                          : 0;
  if (control(fd, KVM_SET_VCPU_EVENTS, &events) != 0) return failed("set a vCPU's events");
  return {};
}

constexpr uint8_t slot(MsrSlot which, unsigned index = 0) {
  return static_cast<uint8_t>(static_cast<unsigned>(which) + index);
}

constexpr auto make_slots() {
  std::array<SlotMsr, 18 + 16 + 11> rows{{
      {slot(MsrSlot::SysenterCs), msr::sysenter_cs},
      {slot(MsrSlot::SysenterEsp), msr::sysenter_esp},
      {slot(MsrSlot::SysenterEip), msr::sysenter_eip},
      {slot(MsrSlot::Star), msr::star},
      {slot(MsrSlot::Lstar), msr::lstar},
      {slot(MsrSlot::Cstar), msr::cstar},
      {slot(MsrSlot::Sfmask), msr::sfmask},
      {slot(MsrSlot::KernelGsBase), msr::kernel_gs_base},
      {slot(MsrSlot::TscAux), msr::tsc_aux},
      {slot(MsrSlot::Pat), msr::pat},
      {slot(MsrSlot::MiscEnable), msr::misc_enable},
      {slot(MsrSlot::SpecCtrl), msr::spec_ctrl},
      {slot(MsrSlot::MtrrDefType), msr::mtrr_def_type},
      {slot(MsrSlot::TscAdjust), msr::tsc_adjust},
      {slot(MsrSlot::KvmSystemTime), msr::kvm_system_time_new},
      {slot(MsrSlot::KvmWallClock), msr::kvm_wall_clock_new},
      {slot(MsrSlot::McgStatus), msr::mcg_status},
      {slot(MsrSlot::FeatureControl), msr::feature_control},
  }};
  size_t next = 18;
  for (unsigned i = 0; i < 16; ++i) rows[next++] = {slot(MsrSlot::MtrrPhys0, i), msr::mtrr_phys_base0 + i};
  constexpr uint32_t fixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
  for (unsigned i = 0; i < 11; ++i) rows[next++] = {slot(MsrSlot::MtrrFixed0, i), fixed[i]};
  return rows;
}
constexpr auto slots = make_slots();

// Reads them in one request, into `state` unless null. How many the kernel gave before it met one that it does not
// know.
int read_msrs(int vcpu_fd, std::span<const SlotMsr> wanted, CpuState* state) {
  const List<kvm_msr_entry> list{static_cast<uint32_t>(wanted.size())};
  const std::span<kvm_msr_entry> entries = list.entries();
  for (size_t i = 0; i < wanted.size(); ++i) entries[i].index = wanted[i].number;
  const int count = control(vcpu_fd, get_msrs, list.get());
  for (int i = 0; state != nullptr && i < count; ++i) state->msrs[wanted[i].slot] = entries[i].data;
  return count;
}

constexpr uint64_t misc_enable_reset = 1u << 11 | 1u << 12 | 1;  // no BTS, no PEBS, fast strings

}  // namespace

std::span<const SlotMsr> slot_msrs() { return slots; }

const SlotMsr* find_slot(uint32_t number) {
  const auto* found = std::ranges::find(slots, number, &SlotMsr::number);
  return found == slots.end() ? nullptr : found;
}

CpuState power_on_state(const CpuModel& model) {
  CpuState state;
  state.gpr[Rdx] = model.cpuid(1, 0, {}).eax;
  for (SegmentState& segment : state.segments) segment = {.base = 0, .limit = 0xffff, .attributes = 0x93};
  state.segments[Cs] = {.base = 0xffff'0000, .limit = 0xffff, .attributes = 0x9b, .selector = 0xf000};
  state.ldtr = {.base = 0, .limit = 0xffff, .attributes = 0x82};
  state.tr = {.base = 0, .limit = 0xffff, .attributes = 0x8b};
  state.msrs[slot(MsrSlot::Pat)] = 0x0007'0406'0007'0406;
  state.msrs[slot(MsrSlot::MiscEnable)] = misc_enable_reset;
  state.msrs[slot(MsrSlot::FeatureControl)] = 1;
  // With XSTATE_BV clear every component takes its initial configuration; FCW and MXCSR for readers of the image.
  state.xsave.data.assign(legacy_xsave, 0);
  state.xsave.data[0] = 0x7f;
  state.xsave.data[1] = 0x03;
  state.xsave.data[24] = 0x80;
  state.xsave.data[25] = 0x1f;
  return state;
}

CpuState init_state(const CpuState& before, const CpuModel& model) {
  CpuState state = power_on_state(model);
  state.cr0 = (before.cr0 & (cr0::cd | cr0::nw)) | cr0::et;
  state.xcr0 = before.xcr0;
  state.tsc_offset = before.tsc_offset;
  state.msrs = before.msrs;
  state.xsave = before.xsave;
  return state;
}

void start_at(CpuState& state, uint8_t sipi_vector) {
  state.segments[Cs].selector = static_cast<uint16_t>(sipi_vector << 8);
  state.segments[Cs].base = uint64_t{sipi_vector} << 12;
  state.rip = 0;
  state.activity = Activity::Running;
}

bool get_msr(int vcpu_fd, uint32_t number, uint64_t& value) {
  const List<kvm_msr_entry> list{1};
  list.entries()[0].index = number;
  if (control(vcpu_fd, get_msrs, list.get()) != 1) return false;
  value = list.entries()[0].data;
  return true;
}

bool set_msr(int vcpu_fd, uint32_t number, uint64_t value) {
  const List<kvm_msr_entry> list{1};
  list.entries()[0] = {.index = number, .reserved = 0, .data = value};
  return control(vcpu_fd, set_msrs, list.get()) == 1;
}

std::vector<SlotMsr> known_msrs(int vcpu_fd, std::span<const SlotMsr> wanted) {
  std::vector<SlotMsr> known;
  while (!wanted.empty()) {
    // The kernel stops at the first that it does not know.
    const int count = std::max(read_msrs(vcpu_fd, wanted, nullptr), 0);
    known.insert(known.end(), wanted.begin(), wanted.begin() + count);
    wanted = wanted.subspan(std::min<size_t>(static_cast<size_t>(count) + 1, wanted.size()));
  }
  return known;
}

Result<> get_state(int vcpu_fd, const StateAbilities& abilities, std::span<const SlotMsr> held, CpuState& state) {
  kvm_regs regs{};
  if (control(vcpu_fd, KVM_GET_REGS, &regs) != 0) return failed("read a vCPU's registers");
  for (unsigned i = 0; i < 16; ++i) state.gpr[i] = regs.*gprs[i];
  state.rip = regs.rip;
  state.rflags = regs.rflags;
  if (auto done = get_sregs(vcpu_fd, abilities, state); !done) return done;

  kvm_debugregs debug{};
  if (control(vcpu_fd, KVM_GET_DEBUGREGS, &debug) != 0) return failed("read debug registers");
  state.dr = {debug.db[0], debug.db[1], debug.db[2], debug.db[3], 0, 0, debug.dr6, debug.dr7};

  if (auto done = get_xsave(vcpu_fd, abilities, state); !done) return done;
  state.xcr0 = 1;
  if (abilities.xsave) {
    kvm_xcrs xcrs{};
    if (control(vcpu_fd, KVM_GET_XCRS, &xcrs) != 0) return failed("read XCR0");
    for (uint32_t i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; ++i) {
      if (xcrs.xcrs[i].xcr == 0) state.xcr0 = xcrs.xcrs[i].value;
    }
  }

  kvm_vcpu_events events{};
  if (control(vcpu_fd, KVM_GET_VCPU_EVENTS, &events) != 0) return failed("read a vCPU's events");
  state.nmi_blocked = events.nmi.masked != 0;
  // AMD's CPUs do not say by which instruction: then both bits are set.
  state.interrupt_shadow = (events.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS) != 0 ? 2
                           : events.interrupt.shadow != 0                             ? 1
                                                                                      : 0;
  if (const int count = read_msrs(vcpu_fd, held, &state); count != static_cast<int>(held.size())) {
    return fail("/dev/kvm: read MSR {:#x}: the host's kernel does not know it any more",
                held[static_cast<size_t>(std::max(count, 0))].number);
  }
  return {};
}

Result<> set_state(int vcpu_fd, const StateAbilities& abilities, std::span<const SlotMsr> held,
                   const CpuInterrupts& interrupts, const CpuState& state) {
  // XCR0 before CR4.OSXSAVE and the XSAVE image; segment and control registers before MSRs that depend on the mode.
  if (abilities.xsave) {
    kvm_xcrs xcrs{};
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].value = (state.xcr0 & abilities.xcr0) | 1;
    if (control(vcpu_fd, KVM_SET_XCRS, &xcrs) != 0) return failed("set XCR0");
  }
  if (auto done = set_xsave(vcpu_fd, abilities, state); !done) return done;
  if (auto done = set_sregs(vcpu_fd, abilities, interrupts, state); !done) return done;
  kvm_regs regs{};
  for (unsigned i = 0; i < 16; ++i) regs.*gprs[i] = state.gpr[i];
  regs.rip = state.rip;
  regs.rflags = state.rflags | rflags::fixed;
  if (control(vcpu_fd, KVM_SET_REGS, &regs) != 0) return failed("set a vCPU's registers");
  kvm_debugregs debug{};
  std::copy_n(state.dr.begin(), 4, debug.db);
  debug.dr6 = state.dr[6];
  debug.dr7 = state.dr[7];
  if (control(vcpu_fd, KVM_SET_DEBUGREGS, &debug) != 0) return failed("set debug registers");
  const List<kvm_msr_entry> msrs{static_cast<uint32_t>(held.size())};
  std::ranges::transform(held, msrs.entries().begin(), [&](const SlotMsr& row) {
    return kvm_msr_entry{.index = row.number, .reserved = 0, .data = state.msrs[row.slot]};
  });
  if (const int count = control(vcpu_fd, set_msrs, msrs.get()); count != static_cast<int>(held.size())) {
    const SlotMsr& refused = held[static_cast<size_t>(std::max(count, 0))];
    return fail("/dev/kvm: the host's kernel refuses {:#x} for MSR {:#x}; use --engine jit", state.msrs[refused.slot],
                refused.number);
  }
  return set_events(vcpu_fd, state);
}

}  // namespace caisson::kvm
