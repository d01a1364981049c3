// Control and debug registers, LMSW, SMSW, CLTS, and the TLB instructions INVLPG, INVPCID.
//   Source   Intel SDM vol. 3, 2.5 (control registers), 4.1.2 (paging-mode enabling), 4.10.4 (invalidation), 17.2
//   (debug)
#include "jit/interpret/control_registers.h"

#include "jit/interpret/operands.h"
#include "jit/interpret/privilege.h"
#include "jit/interpret/segments.h"

namespace caisson::jit {
namespace {

using namespace x86;
using Kind = Operand::Kind;

bool set_cr0(Cpu& cpu, uint64_t value) {
  constexpr uint64_t known =
      cr0::pe | cr0::mp | cr0::em | cr0::ts | cr0::et | cr0::ne | cr0::wp | cr0::am | cr0::nw | cr0::cd | cr0::pg;
  if (value >> 32) return raise(cpu, Gp, 0);
  value = (value & known) | cr0::et;
  if ((value & cr0::pg) && !(value & cr0::pe)) return raise(cpu, Gp, 0);
  if ((value & cr0::nw) && !(value & cr0::cd)) return raise(cpu, Gp, 0);
  const uint64_t changed = cpu.cr0 ^ value;
  uint64_t efer_value = cpu.efer;
  if (changed & cr0::pg) {
    if (value & cr0::pg) {
      if (cpu.efer & efer::lme) {
        if (!(cpu.cr4 & cr4::pae) || cpu.segments[Cs].long_mode()) return raise(cpu, Gp, 0);
        efer_value |= efer::lma;
      }
    } else {
      if (cpu.code_bits == 64 || (cpu.cr4 & cr4::pcide)) return raise(cpu, Gp, 0);
      efer_value &= ~efer::lma;
    }
  }
  if ((value & cr0::pg) && (cpu.cr4 & cr4::pae) && !(efer_value & efer::lma) &&
      (changed & (cr0::pg | cr0::cd | cr0::nw)) && !mmu::load_pdptes(cpu, cpu.cr3)) {
    return false;
  }
  cpu.cr0 = value;
  cpu.efer = efer_value;
  update_mode(cpu);
  if (changed & (cr0::pg | cr0::wp | cr0::pe)) mmu::flush_all(cpu);
  return true;
}

bool set_cr4(Cpu& cpu, uint64_t value) {
  const CpuModel& model = *cpu.model;
  uint64_t known = cr4::vme | cr4::pvi | cr4::tsd | cr4::de | cr4::pse | cr4::pae | cr4::mce | cr4::pge | cr4::pce |
                   cr4::osfxsr | cr4::osxmmexcpt;
  if (model.has(Feature::Umip)) known |= cr4::umip;
  if (model.has(Feature::Fsgsbase)) known |= cr4::fsgsbase;
  if (model.has(Feature::Pcid)) known |= cr4::pcide;
  if (model.has(Feature::Xsave)) known |= cr4::osxsave;
  if (model.has(Feature::Smep)) known |= cr4::smep;
  if (model.has(Feature::Smap)) known |= cr4::smap;
  if (value & ~known) return raise(cpu, Gp, 0);
  const uint64_t changed = cpu.cr4 ^ value;
  if (cpu.long_mode && !(value & cr4::pae)) return raise(cpu, Gp, 0);
  if ((changed & value & cr4::pcide) && (!cpu.long_mode || (cpu.cr3 & 0xfff))) return raise(cpu, Gp, 0);
  constexpr uint64_t reloads = cr4::pae | cr4::pge | cr4::pse | cr4::smep;
  if (cpu.paging && !cpu.long_mode && (value & cr4::pae) && (changed & reloads) && !mmu::load_pdptes(cpu, cpu.cr3)) {
    return false;
  }
  cpu.cr4 = value;
  update_mode(cpu);
  if (changed & (cr4::pae | cr4::pge | cr4::pse | cr4::pcide | cr4::smep | cr4::smap)) mmu::flush_all(cpu);
  return true;
}

bool debug_register(Step& step, unsigned& number) {
  Cpu& cpu = step.cpu;
  if (number == 4 || number == 5) {
    if (cpu.cr4 & cr4::de) return raise(cpu, Ud);
    number += 2;
  }
  if (number > 7) return raise(cpu, Ud);
  if (!require_cpl0(cpu)) return false;
  if (cpu.dr[7] & 1u << 13) {  // general detect: #DB instead, which clears GD
    cpu.dr[7] &= ~uint64_t{1u << 13};
    cpu.dr[6] |= 1u << 13;
    return raise(cpu, Db);
  }
  return true;
}

bool lmsw(Step& step) {
  Cpu& cpu = step.cpu;
  if (!require_cpl0(cpu)) return false;
  uint16_t value;
  if (!get(step, step.in.operands[0], value)) return false;
  // PE can be set but not cleared; bits above TS stay.
  return set_cr0(cpu, (cpu.cr0 & ~uint64_t{14}) | (value & 15));
}

bool smsw(Step& step) {
  Cpu& cpu = step.cpu;
  if (cpu.cpl > 0 && (cpu.cr4 & cr4::umip)) return raise(cpu, Gp, 0);
  const Operand& destination = step.in.operands[0];
  if (destination.kind == Kind::Memory || step.in.operand_bits == 16) {
    return put(step, destination, static_cast<uint16_t>(cpu.cr0));
  }
  if (step.in.operand_bits == 32) return put(step, destination, static_cast<uint32_t>(cpu.cr0));
  return put(step, destination, cpu.cr0);
}

bool clts(Step& step) {
  if (!require_cpl0(step.cpu)) return false;
  step.cpu.cr0 &= ~cr0::ts;
  update_mode(step.cpu);
  return true;
}

bool invlpg(Step& step) {
  Cpu& cpu = step.cpu;
  if (!require_cpl0(cpu)) return false;
  const Operand& memory = step.in.operands[0];
  uint64_t linear = effective_offset(step, memory);
  if (cpu.code_bits != 64 || memory.segment >= Fs) linear += cpu.segments[memory.segment].base;
  if (cpu.code_bits != 64) linear &= 0xffff'ffff;
  if (canonical(linear)) mmu::flush_page(cpu, linear);
  return true;
}

bool invpcid(Step& step) {
  Cpu& cpu = step.cpu;
  if (!cpu.model->has(Feature::Invpcid)) return raise(cpu, Ud);
  if (!require_cpl0(cpu)) return false;
  const uint64_t type = truncate(cpu.gpr[step.in.operands[0].reg], cpu.code_bits == 64 ? 64 : 32);
  uint64_t at;
  Pair descriptor;
  if (!operand_address(step, step.in.operands[1], 16, false, at) || !mmu::read_bytes(cpu, at, &descriptor, 16))
    return false;
  const uint64_t pcid = descriptor.low & 0xfff;
  if (type > 3) return raise(cpu, Gp, 0);
  if (type < 3 && descriptor.low >> 12 && type != 2) return raise(cpu, Gp, 0);
  if (type < 2 && !(cpu.cr4 & cr4::pcide) && pcid != 0) return raise(cpu, Gp, 0);
  switch (type) {
    case 0:
      if (!canonical(descriptor.high)) return raise(cpu, Gp, 0);
      if ((cpu.cr4 & cr4::pcide) && pcid != (cpu.cr3 & 0xfff)) {
        mmu::flush_pcid(cpu, static_cast<uint16_t>(pcid));
      } else {
        mmu::flush_page(cpu, descriptor.high);
      }
      break;
    case 1: mmu::flush_pcid(cpu, static_cast<uint16_t>(pcid)); break;
    case 2: mmu::flush_all(cpu); break;
    default: mmu::flush_pcids(cpu); break;
  }
  return true;
}

}  // namespace

bool set_cr3(Cpu& cpu, uint64_t value) {
  bool keep = false;
  if (cpu.long_mode) {
    if (cpu.cr4 & cr4::pcide) {
      keep = value >> 63;
      value &= ~(uint64_t{1} << 63);
    }
    if (value >> cpu.model->physical_bits()) return raise(cpu, Gp, 0);
  } else {
    value &= 0xffff'ffff;
    if (cpu.paging && (cpu.cr4 & cr4::pae) && !mmu::load_pdptes(cpu, value)) return false;
  }
  cpu.cr3 = value;
  mmu::cr3_changed(cpu, keep);
  return true;
}

bool mov_to_control(Step& step) {
  Cpu& cpu = step.cpu;
  if (!require_cpl0(cpu)) return false;
  const unsigned number = step.in.operands[0].reg;
  uint64_t value = cpu.gpr[step.in.operands[1].reg];
  if (cpu.code_bits != 64) value &= 0xffff'ffff;
  switch (number) {
    case 0: return set_cr0(cpu, value);
    case 2: cpu.cr2 = value; return true;
    case 3: return set_cr3(cpu, value);
    case 4: return set_cr4(cpu, value);
    case 8:
      if (value > 15) return raise(cpu, Gp, 0);
      cpu.interrupts->set_cr8(static_cast<uint8_t>(value));
      return true;
    default: return raise(cpu, Ud);
  }
}

bool mov_from_control(Step& step) {
  Cpu& cpu = step.cpu;
  if (!require_cpl0(cpu)) return false;
  uint64_t value;
  switch (step.in.operands[1].reg) {
    case 0: value = cpu.cr0; break;
    case 2: value = cpu.cr2; break;
    case 3: value = cpu.cr3; break;
    case 4: value = cpu.cr4; break;
    case 8: value = cpu.interrupts->cr8(); break;
    default: return raise(cpu, Ud);
  }
  cpu.gpr[step.in.operands[0].reg] = cpu.code_bits == 64 ? value : value & 0xffff'ffff;
  return true;
}

bool mov_to_debug(Step& step) {
  Cpu& cpu = step.cpu;
  unsigned number = step.in.operands[0].reg;
  if (!debug_register(step, number)) return false;
  uint64_t value = cpu.gpr[step.in.operands[1].reg];
  if (cpu.code_bits != 64) value &= 0xffff'ffff;
  if (number >= 6 && value >> 32) return raise(cpu, Gp, 0);
  if (number == 6) {
    value = (value & 0xe00f) | 0xffff'0ff0;
  } else if (number == 7) {
    value = (value & 0xffff'2bff) | 0x400;
  }
  cpu.dr[number] = value;
  return true;
}

bool mov_from_debug(Step& step) {
  Cpu& cpu = step.cpu;
  unsigned number = step.in.operands[1].reg;
  if (!debug_register(step, number)) return false;
  cpu.gpr[step.in.operands[0].reg] = cpu.code_bits == 64 ? cpu.dr[number] : cpu.dr[number] & 0xffff'ffff;
  return true;
}

void add_control_registers(HandlerTable& table) {
  table.set(ZYDIS_MNEMONIC_LMSW, lmsw);
  table.set(ZYDIS_MNEMONIC_SMSW, smsw);
  table.set(ZYDIS_MNEMONIC_CLTS, clts);
  table.set(ZYDIS_MNEMONIC_INVLPG, invlpg);
  table.set(ZYDIS_MNEMONIC_INVPCID, invpcid);
}

}  // namespace caisson::jit
