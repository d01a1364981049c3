// RDMSR, WRMSR and the model-specific registers.
//   Source   Intel SDM vol. 4, chapter 2; vol. 3, 11.11 (MTRRs), 11.12 (PAT); Linux Documentation/virt/kvm/x86/msr.rst
//   Models   what Linux, GRUB and SeaBIOS read and write; anything else is #GP(0), counted
#include <algorithm>
#include <bit>
#include <optional>

#include "base/log.h"
#include "jit/interpret/msr.h"
#include "jit/interpret/privilege.h"
#include "jit/interpret/pvclock.h"
#include "jit/mmu/mmu.h"

namespace caisson::jit {
namespace {

using namespace x86;
using Slot = MsrSlot;

using Read = uint64_t (*)(Cpu& cpu);
using Write = bool (*)(Cpu& cpu, uint64_t value);  // false: #GP(0)

struct Row {
  uint32_t number;
  Read read;    // null: write-only
  Write write;  // null: read-only
};

template <Slot S>
uint64_t read_slot(Cpu& cpu) {
  return cpu.msr(S);
}

// Bits outside `Mask` are reserved.
template <Slot S, uint64_t Mask = ~uint64_t{0}>
bool write_slot(Cpu& cpu, uint64_t value) {
  if (value & ~Mask) return false;
  cpu.msr(S) = value;
  return true;
}

template <Slot S>
bool write_canonical(Cpu& cpu, uint64_t value) {
  if (!canonical(value)) return false;
  cpu.msr(S) = value;
  return true;
}

template <uint64_t Value>
uint64_t read_constant(Cpu&) {
  return Value;
}

bool write_ignored(Cpu&, uint64_t) { return true; }

template <SegmentRegister Reg>
uint64_t read_base(Cpu& cpu) {
  return cpu.segments[Reg].base;
}

template <SegmentRegister Reg>
bool write_base(Cpu& cpu, uint64_t value) {
  if (!canonical(value)) return false;
  cpu.segments[Reg].base = value;
  return true;
}

// --- time stamp counter ----------------------------------------------------------------------------------------------

uint64_t read_tsc(Cpu& cpu) { return cpu.clock->tsc() + cpu.tsc_offset; }

// The local APIC counts the machine's TSC, the guest its own (vol. 3, 10.5.4.1).
std::optional<uint64_t> read_deadline(Cpu& cpu) {
  const auto value = cpu.interrupts->read_msr(msr::tsc_deadline);
  return value && *value != 0 ? *value + cpu.tsc_offset : value;
}
bool write_deadline(Cpu& cpu, uint64_t value) {
  if (value == 0) return cpu.interrupts->write_msr(msr::tsc_deadline, 0);
  // 0 would disarm: the moment is one that has passed.
  const uint64_t machine = value - cpu.tsc_offset;
  return cpu.interrupts->write_msr(msr::tsc_deadline, machine == 0 ? 1 : machine);
}

bool shift_tsc(Cpu& cpu, uint64_t by) {
  const auto deadline = read_deadline(cpu);
  cpu.tsc_offset += by;
  if (deadline && *deadline != 0) (void)write_deadline(cpu, *deadline);
  cpu.msr(Slot::TscAdjust) += by;
  update_system_time(cpu);
  return true;
}

bool write_tsc(Cpu& cpu, uint64_t value) { return shift_tsc(cpu, value - read_tsc(cpu)); }
bool write_tsc_adjust(Cpu& cpu, uint64_t value) { return shift_tsc(cpu, value - cpu.msr(Slot::TscAdjust)); }

// --- memory types ----------------------------------------------------------------------------------------------------

bool memory_type(uint8_t type, bool uncached_minus) {
  return type == 0 || type == 1 || (type >= 4 && type <= 6) || (uncached_minus && type == 7);
}

bool write_pat(Cpu& cpu, uint64_t value) {
  for (unsigned i = 0; i < 8; ++i) {
    if (!memory_type(static_cast<uint8_t>(value >> 8 * i), true)) return false;
  }
  cpu.msr(Slot::Pat) = value;
  return true;
}

constexpr unsigned variable_ranges = 8;

bool write_mtrr_default(Cpu& cpu, uint64_t value) {
  if ((value & ~uint64_t{0xcff}) || !memory_type(static_cast<uint8_t>(value), false)) return false;
  cpu.msr(Slot::MtrrDefType) = value;
  return true;
}

bool write_variable(Cpu& cpu, unsigned index, uint64_t value) {
  const uint64_t address = ((uint64_t{1} << cpu.model->physical_bits()) - 1) & ~uint64_t{0xfff};
  const bool mask = index & 1;
  if (value & ~(address | (mask ? 0x800 : 0xff))) return false;
  if (!mask && !memory_type(static_cast<uint8_t>(value), false)) return false;
  cpu.msrs[static_cast<size_t>(Slot::MtrrPhys0) + index] = value;
  return true;
}

bool write_fixed(Cpu& cpu, unsigned index, uint64_t value) {
  for (unsigned i = 0; i < 8; ++i) {
    if (!memory_type(static_cast<uint8_t>(value >> 8 * i), false)) return false;
  }
  cpu.msrs[static_cast<size_t>(Slot::MtrrFixed0) + index] = value;
  return true;
}

// 64K, 2 × 16K, 8 × 4K: numbers 250h, 258h, 259h, 268h-26Fh.
bool fixed_index(uint32_t number, unsigned& index) {
  if (number == 0x250) {
    index = 0;
  } else if (number == 0x258 || number == 0x259) {
    index = 1 + (number & 1);
  } else if (number >= 0x268 && number <= 0x26f) {
    index = 3 + (number & 7);
  } else {
    return false;
  }
  return true;
}

// --- the rest --------------------------------------------------------------------------------------------------------

uint64_t read_efer(Cpu& cpu) { return cpu.efer; }

bool write_efer(Cpu& cpu, uint64_t value) {
  uint64_t known = efer::sce | efer::lme | efer::lma;
  if (cpu.model->has(Feature::Nx)) known |= efer::nxe;
  if (value & ~known) return false;
  if (((value ^ cpu.efer) & efer::lme) && cpu.paging) return false;
  value = (value & ~efer::lma) | (cpu.efer & efer::lma);
  const uint64_t changed = value ^ cpu.efer;
  cpu.efer = value;
  update_mode(cpu);
  if (changed & efer::nxe) mmu::flush_all(cpu);
  return true;
}

uint64_t read_capabilities(Cpu& cpu) { return cpu.model->arch_capabilities(); }

bool write_pred_cmd(Cpu&, uint64_t value) { return (value & ~uint64_t{1}) == 0; }

// Locked by the firmware that is not there: no VMX.
bool write_feature_control(Cpu& cpu, uint64_t value) {
  if (cpu.msr(Slot::FeatureControl) & 1) return false;
  cpu.msr(Slot::FeatureControl) = value & 1;
  return (value & ~uint64_t{1}) == 0;
}

constexpr uint64_t misc_enable_fixed = 1u << 11 | 1u << 12;  // BTS and PEBS unavailable

bool write_misc_enable(Cpu& cpu, uint64_t value) {
  cpu.msr(Slot::MiscEnable) = value | misc_enable_fixed;
  return true;
}

bool write_system_time(Cpu& cpu, uint64_t value) {
  cpu.msr(Slot::KvmSystemTime) = value;
  update_system_time(cpu);
  return true;
}

bool write_wall_clock_msr(Cpu& cpu, uint64_t value) {
  cpu.msr(Slot::KvmWallClock) = value;
  write_wall_clock(cpu, value);
  return true;
}

// Debug control: branch tracing is not there, but clearing it must work.
bool write_debugctl(Cpu&, uint64_t value) { return (value & ~uint64_t{3}) == 0; }

constexpr Row rows[] = {
    {msr::tsc, read_tsc, write_tsc},
    {0x11, read_slot<Slot::KvmWallClock>, write_wall_clock_msr},  // MSR_KVM_WALL_CLOCK
    {0x12, read_slot<Slot::KvmSystemTime>, write_system_time},    // MSR_KVM_SYSTEM_TIME
    {0x17, read_constant<0>, nullptr},                            // IA32_PLATFORM_ID
    {0x2a, read_constant<0>, write_ignored},                      // EBL_CR_POWERON
    {msr::feature_control, read_slot<Slot::FeatureControl>, write_feature_control},
    {msr::tsc_adjust, read_slot<Slot::TscAdjust>, write_tsc_adjust},
    {msr::spec_ctrl, read_slot<Slot::SpecCtrl>, write_slot<Slot::SpecCtrl, 7>},
    {msr::pred_cmd, nullptr, write_pred_cmd},
    {msr::bios_sign_id, read_constant<uint64_t{1} << 32>, write_ignored},
    {msr::mtrr_cap, read_constant<variable_ranges | 1u << 8 | 1u << 10>, nullptr},
    {msr::arch_capabilities, read_capabilities, nullptr},
    {msr::sysenter_cs, read_slot<Slot::SysenterCs>, write_slot<Slot::SysenterCs>},
    {msr::sysenter_esp, read_slot<Slot::SysenterEsp>, write_canonical<Slot::SysenterEsp>},
    {msr::sysenter_eip, read_slot<Slot::SysenterEip>, write_canonical<Slot::SysenterEip>},
    {msr::mcg_cap, read_constant<0>, nullptr},
    {msr::mcg_status, read_slot<Slot::McgStatus>, write_slot<Slot::McgStatus, 7>},
    {0x198, read_constant<0>, nullptr},  // IA32_PERF_STATUS
    {msr::misc_enable, read_slot<Slot::MiscEnable>, write_misc_enable},
    {0x1d9, read_constant<0>, write_debugctl},  // IA32_DEBUGCTL
    {msr::pat, read_slot<Slot::Pat>, write_pat},
    {msr::mtrr_def_type, read_slot<Slot::MtrrDefType>, write_mtrr_default},
    {msr::kvm_wall_clock_new, read_slot<Slot::KvmWallClock>, write_wall_clock_msr},
    {msr::kvm_system_time_new, read_slot<Slot::KvmSystemTime>, write_system_time},
    {msr::efer, read_efer, write_efer},
    {msr::star, read_slot<Slot::Star>, write_slot<Slot::Star>},
    {msr::lstar, read_slot<Slot::Lstar>, write_canonical<Slot::Lstar>},
    {msr::cstar, read_slot<Slot::Cstar>, write_canonical<Slot::Cstar>},
    {msr::sfmask, read_slot<Slot::Sfmask>, write_slot<Slot::Sfmask, 0xffff'ffff>},
    {msr::fs_base, read_base<Fs>, write_base<Fs>},
    {msr::gs_base, read_base<Gs>, write_base<Gs>},
    {msr::kernel_gs_base, read_slot<Slot::KernelGsBase>, write_canonical<Slot::KernelGsBase>},
    {msr::tsc_aux, read_slot<Slot::TscAux>, write_slot<Slot::TscAux, 0xffff'ffff>},
};
static_assert(std::ranges::is_sorted(rows, {}, &Row::number));

const Row* find(uint32_t number) {
  const Row* row = std::ranges::lower_bound(rows, number, {}, &Row::number);
  return row != std::end(rows) && row->number == number ? row : nullptr;
}

bool local_apic(const Cpu& cpu, uint32_t number) {
  if (number == msr::apic_base) return true;
  if (number == msr::tsc_deadline) return cpu.model->has(Feature::TscDeadline);
  return number >= msr::x2apic_first && number <= msr::x2apic_last && cpu.model->has(Feature::X2apic);
}

log::Limit unknown_reads, unknown_writes;

bool rdmsr(Step& step) {
  Cpu& cpu = step.cpu;
  if (!require_cpl0(cpu)) return false;
  const uint32_t number = static_cast<uint32_t>(cpu.gpr[Rcx]);
  uint64_t value;
  if (!read_msr(cpu, number, value)) return raise(cpu, Gp, 0);
  cpu.gpr[Rax] = value & 0xffff'ffff;
  cpu.gpr[Rdx] = value >> 32;
  return true;
}

bool wrmsr(Step& step) {
  Cpu& cpu = step.cpu;
  if (!require_cpl0(cpu)) return false;
  const uint64_t value = cpu.gpr[Rdx] << 32 | (cpu.gpr[Rax] & 0xffff'ffff);
  return write_msr(cpu, static_cast<uint32_t>(cpu.gpr[Rcx]), value) || raise(cpu, Gp, 0);
}

}  // namespace

bool read_msr(Cpu& cpu, uint32_t number, uint64_t& value) {
  if (local_apic(cpu, number)) {
    const auto result = number == msr::tsc_deadline ? read_deadline(cpu) : cpu.interrupts->read_msr(number);
    if (!result) return false;
    value = *result;
    return true;
  }
  unsigned index;
  if (const Row* row = find(number)) {
    if (row->read == nullptr) return false;
    value = row->read(cpu);
    return true;
  }
  if (number - msr::mtrr_phys_base0 < 2 * variable_ranges) {
    value = cpu.msrs[static_cast<size_t>(Slot::MtrrPhys0) + number - msr::mtrr_phys_base0];
    return true;
  }
  if (fixed_index(number, index)) {
    value = cpu.msrs[static_cast<size_t>(Slot::MtrrFixed0) + index];
    return true;
  }
  if (unknown_reads.allow()) log::info("the guest reads unknown MSR {:#x}: #GP", number);
  return false;
}

bool write_msr(Cpu& cpu, uint32_t number, uint64_t value) {
  if (local_apic(cpu, number)) {
    return number == msr::tsc_deadline ? write_deadline(cpu, value) : cpu.interrupts->write_msr(number, value);
  }
  unsigned index;
  if (const Row* row = find(number)) return row->write != nullptr && row->write(cpu, value);
  if (number - msr::mtrr_phys_base0 < 2 * variable_ranges)
    return write_variable(cpu, number - msr::mtrr_phys_base0, value);
  if (fixed_index(number, index)) return write_fixed(cpu, index, value);
  if (unknown_writes.allow()) log::info("the guest writes {:#x} to unknown MSR {:#x}: #GP", value, number);
  return false;
}

void reset_msrs(Cpu& cpu, bool init) {
  if (init) return;  // vol. 3, table 9-1: INIT leaves them
  cpu.msrs.fill(0);
  cpu.msr(Slot::Pat) = 0x0007'0406'0007'0406;
  cpu.msr(Slot::MiscEnable) = misc_enable_fixed | 1;
  cpu.msr(Slot::FeatureControl) = 1;
}

void add_msrs(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_RDMSR, rdmsr);
  table.set(ZYDIS_MNEMONIC_WRMSR, wrmsr);
}

}  // namespace caisson::jit
