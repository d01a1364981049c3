// What a vCPU's exits ask for: ports, device memory, MSRs.
//   Source   Intel SDM vol. 4, chapter 2; Linux Documentation/virt/kvm/api.rst, KVM_RUN
#include <cstring>

#include "base/log.h"
#include "kvm/vcpu.h"

namespace caisson::kvm {
namespace {

using namespace x86;
using Slot = MsrSlot;

log::Limit unknown_reads, unknown_writes;

}  // namespace

void KvmVcpu::handle_io() {
  access_open_ = true;
  const auto& io = run_->io;
  Bus& bus = engine_.services().bus;
  uint8_t* data = reinterpret_cast<uint8_t*>(&*run_) + io.data_offset;
  for (uint32_t i = 0; i < io.count; ++i, data += io.size) {
    uint64_t value = 0;
    if (io.direction == KVM_EXIT_IO_OUT) {
      std::memcpy(&value, data, io.size);
      bus.write(Space::Port, io.port, io.size, value);
    } else {
      value = bus.read(Space::Port, io.port, io.size);
      std::memcpy(data, &value, io.size);
    }
  }
}

bool KvmVcpu::is_local_apic(uint64_t address) const {
  if (model_ != nullptr) return false;
  const uint64_t base = interrupts_.apic_base();
  return (base & 0xc00) == 0x800 && (address & ~uint64_t{0xfff}) == (base & 0xf'ffff'f000);
}

void KvmVcpu::handle_mmio() {
  access_open_ = true;
  const uint64_t address = run_->mmio.phys_addr;
  const unsigned size = run_->mmio.len;
  uint64_t value = 0;
  // The register's 32 bits, from the byte asked for (SDM vol. 3, 11.4.1: other widths are undefined).
  if (is_local_apic(address)) {
    if (run_->mmio.is_write == 0) {
      value = uint64_t{interrupts_.read_register(address & 0xff0)} >> (8 * (address & 3));
      std::memcpy(run_->mmio.data, &value, sizeof value);
    } else if (address % 16 == 0 && size >= 4) {
      std::memcpy(&value, run_->mmio.data, 4);
      interrupts_.write_register(address & 0xff0, static_cast<uint32_t>(value));
    }
    return;
  }
  Bus& bus = engine_.services().bus;
  // The bus knows 1, 2, 4 and 8 bytes.
  for (unsigned done = 0; done < size;) {
    const unsigned left = size - done;
    const unsigned piece = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    if (run_->mmio.is_write != 0) {
      value = 0;
      std::memcpy(&value, run_->mmio.data + done, piece);
      bus.write(Space::Memory, address + done, piece, value);
    } else {
      value = bus.read(Space::Memory, address + done, piece);
      std::memcpy(run_->mmio.data + done, &value, piece);
    }
    done += piece;
  }
}

bool KvmVcpu::read_msr(uint32_t number, uint64_t& value) {
  switch (number) {
    case 0x17:   // IA32_PLATFORM_ID
    case 0x2a:   // EBL_CR_POWERON
    case 0x198:  // IA32_PERF_STATUS
    case 0x1d9:  // IA32_DEBUGCTL: branch tracing is not there
    case msr::mcg_cap: value = 0; return true;
    case msr::bios_sign_id: value = uint64_t{1} << 32; return true;
    case msr::arch_capabilities: value = engine_.arch_capabilities(); return true;
    default: break;
  }
  const bool x2apic = number >= msr::x2apic_first && number <= msr::x2apic_last;
  if (number == msr::apic_base || number == msr::tsc_deadline || x2apic) {
    if (model_ != nullptr) return false;  // the kernel has refused it
    const auto result = interrupts_.read_msr(number);
    if (!result) return false;
    value = *result;
    // The local APIC counts without this CPU's offset.
    if (number == msr::tsc_deadline && value != 0) value += tsc_offset_;
    return true;
  }
  if (const SlotMsr* row = find_slot(number)) {
    value = msrs_[row->slot];
    return true;
  }
  if (unknown_reads.allow()) log::info("the guest reads unknown MSR {:#x}: #GP", number);
  return false;
}

bool KvmVcpu::write_msr(uint32_t number, uint64_t value) {
  constexpr uint64_t misc_enable_fixed = 1u << 11 | 1u << 12;  // BTS and PEBS unavailable
  switch (number) {
    case 0x2a:
    case msr::bios_sign_id: return true;
    case 0x1d9: return (value & ~uint64_t{3}) == 0;
    case 0x17:
    case 0x198:
    case msr::mcg_cap:
    case msr::arch_capabilities: return false;
    case msr::misc_enable: kept(Slot::MiscEnable) = value | misc_enable_fixed; return true;
    case msr::feature_control:  // locked: no VMX
      if ((kept(Slot::FeatureControl) & 1) != 0) return false;
      kept(Slot::FeatureControl) = value & 1;
      return (value & ~uint64_t{1}) == 0;
    case msr::spec_ctrl:  // where the processor has none it does nothing
      if ((value & ~uint64_t{7}) != 0) return false;
      kept(Slot::SpecCtrl) = value;
      return true;
    case msr::pred_cmd: return (value & ~uint64_t{1}) == 0;
    case msr::mcg_status:
      if ((value & ~uint64_t{7}) != 0) return false;
      kept(Slot::McgStatus) = value;
      return true;
    case msr::tsc: return shift_tsc(value - (engine_.services().clock.tsc() + tsc_offset_));
    case msr::tsc_adjust: {
      uint64_t before = kept(Slot::TscAdjust);
      (void)kvm::get_msr(fd_.get(), msr::tsc_adjust, before);
      return shift_tsc(value - before);
    }
    case msr::apic_base: return model_ == nullptr && write_apic_base(value);
    case msr::tsc_deadline:
      return model_ == nullptr && interrupts_.write_msr(number, value == 0 ? 0 : value - tsc_offset_);
    default: break;
  }
  if (number >= msr::x2apic_first && number <= msr::x2apic_last)
    return model_ == nullptr && interrupts_.write_msr(number, value);
  if (unknown_writes.allow()) log::info("the guest writes {:#x} to unknown MSR {:#x}: #GP", value, number);
  return false;
}

bool KvmVcpu::shift_tsc(uint64_t by) {
  uint64_t adjust = kept(Slot::TscAdjust);
  (void)kvm::get_msr(fd_.get(), msr::tsc_adjust, adjust);
  kept(Slot::TscAdjust) = adjust + by;
  (void)kvm::set_msr(fd_.get(), msr::tsc_adjust, adjust + by);
  if (!set_tsc_offset(tsc_offset_ + by)) return false;
  // The kernel has set its timer by the old time.
  uint64_t deadline = 0;
  if (model_ == nullptr || !kvm::get_msr(fd_.get(), msr::tsc_deadline, deadline) || deadline == 0) return true;
  return kvm::set_msr(fd_.get(), msr::tsc_deadline, deadline);
}

bool KvmVcpu::set_tsc_offset(uint64_t offset) {
  tsc_offset_ = offset;
  uint64_t from_host = offset - engine_.tsc_bias();
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&from_host);
  if (control(fd_.get(), KVM_SET_DEVICE_ATTR, &attribute) == 0) return true;
  // Before Linux 5.16: the kernel makes CPUs that are set close to each other agree.
  return kvm::set_msr(fd_.get(), msr::tsc, engine_.services().clock.tsc() + offset);
}

// The kernel shows in CPUID whether the local APIC is enabled.
bool KvmVcpu::write_apic_base(uint64_t value) {
  if (!interrupts_.write_msr(msr::apic_base, value)) return false;
  kvm_sregs sregs{};
  if (control(fd_.get(), KVM_GET_SREGS, &sregs) != 0) return true;
  sregs.apic_base = interrupts_.apic_base();
  sregs.cr8 = interrupts_.cr8();
  (void)control(fd_.get(), KVM_SET_SREGS, &sregs);
  return true;
}

std::string KvmVcpu::describe() const {
  kvm_regs regs{};
  kvm_sregs sregs{};
  if (control(fd_.get(), KVM_GET_REGS, &regs) != 0 || control(fd_.get(), KVM_GET_SREGS, &sregs) != 0) {
    return "its registers cannot be read";
  }
  std::string text = fmt::format(
      "cs {:04x} rip {:x} rflags {:x} rax {:x} rbx {:x} rcx {:x} rdx {:x} rsi {:x} rdi {:x} rbp {:x} rsp {:x} cr0 {:x} "
      "cr2 {:x} cr3 {:x} cr4 {:x} efer {:x}",
      uint16_t{sregs.cs.selector}, uint64_t{regs.rip}, uint64_t{regs.rflags}, uint64_t{regs.rax}, uint64_t{regs.rbx},
      uint64_t{regs.rcx}, uint64_t{regs.rdx}, uint64_t{regs.rsi}, uint64_t{regs.rdi}, uint64_t{regs.rbp},
      uint64_t{regs.rsp}, uint64_t{sregs.cr0}, uint64_t{sregs.cr2}, uint64_t{sregs.cr3}, uint64_t{sregs.cr4},
      uint64_t{sregs.efer});
  kvm_translation where{};
  where.linear_address = (sregs.cs.l != 0 ? 0 : sregs.cs.base) + regs.rip;
  if (control(fd_.get(), KVM_TRANSLATE, &where) != 0 || where.valid == 0) return text + " code unreadable";
  text += " code";
  for (uint64_t i = 0; i < 15; ++i) {
    uint8_t byte;
    if (!engine_.services().memory.read_with_rom(where.physical_address + i, {&byte, 1})) break;
    text += fmt::format(" {:02x}", byte);
  }
  return text;
}

}  // namespace caisson::kvm
