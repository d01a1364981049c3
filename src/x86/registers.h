// Control-register, RFLAGS, EFER and MSR names as in the Intel SDM vol. 3 (chapter 2) and vol. 4.
#pragma once

#include <cstdint>

namespace caisson::x86 {

enum Gpr : uint8_t { Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15 };
enum SegmentRegister : uint8_t { Es, Cs, Ss, Ds, Fs, Gs };

namespace rflags {
inline constexpr uint64_t cf = 1u << 0, fixed = 1u << 1, pf = 1u << 2, af = 1u << 4, zf = 1u << 6, sf = 1u << 7,
                          tf = 1u << 8, interrupt = 1u << 9, df = 1u << 10, of = 1u << 11, iopl = 3u << 12,
                          nt = 1u << 14, rf = 1u << 16, vm = 1u << 17, ac = 1u << 18, vif = 1u << 19, vip = 1u << 20,
                          id = 1u << 21;
inline constexpr uint64_t status = cf | pf | af | zf | sf | of;
}  // namespace rflags

namespace cr0 {
inline constexpr uint64_t pe = 1u << 0, mp = 1u << 1, em = 1u << 2, ts = 1u << 3, et = 1u << 4, ne = 1u << 5,
                          wp = 1u << 16, am = 1u << 18, nw = 1u << 29, cd = 1u << 30, pg = 1u << 31;
}
namespace cr4 {
inline constexpr uint64_t vme = 1u << 0, pvi = 1u << 1, tsd = 1u << 2, de = 1u << 3, pse = 1u << 4, pae = 1u << 5,
                          mce = 1u << 6, pge = 1u << 7, pce = 1u << 8, osfxsr = 1u << 9, osxmmexcpt = 1u << 10,
                          umip = 1u << 11, la57 = 1u << 12, fsgsbase = 1u << 16, pcide = 1u << 17, osxsave = 1u << 18,
                          smep = 1u << 20, smap = 1u << 21, pke = 1u << 22;
}
namespace efer {
inline constexpr uint64_t sce = 1u << 0, lme = 1u << 8, lma = 1u << 10, nxe = 1u << 11;
}

enum Vector : uint8_t {
  De = 0,
  Db = 1,
  Nmi = 2,
  Bp = 3,
  Of = 4,
  Br = 5,
  Ud = 6,
  Nm = 7,
  Df = 8,
  Ts = 10,
  Np = 11,
  StackFault = 12,
  Gp = 13,
  Pf = 14,
  Mf = 16,
  Ac = 17,
  Mc = 18,
  Xm = 19
};

namespace msr {
inline constexpr uint32_t tsc = 0x10, apic_base = 0x1b, feature_control = 0x3a, tsc_adjust = 0x3b, spec_ctrl = 0x48,
                          pred_cmd = 0x49, bios_sign_id = 0x8b, mtrr_cap = 0xfe, arch_capabilities = 0x10a,
                          sysenter_cs = 0x174, sysenter_esp = 0x175, sysenter_eip = 0x176, mcg_cap = 0x179,
                          mcg_status = 0x17a, misc_enable = 0x1a0, mtrr_phys_base0 = 0x200, mtrr_fix_64k = 0x250,
                          pat = 0x277, mtrr_def_type = 0x2ff, tsc_deadline = 0x6e0, x2apic_first = 0x800,
                          x2apic_last = 0x8ff, xss = 0xda0, efer = 0xc000'0080, star = 0xc000'0081, lstar = 0xc000'0082,
                          cstar = 0xc000'0083, sfmask = 0xc000'0084, fs_base = 0xc000'0100, gs_base = 0xc000'0101,
                          kernel_gs_base = 0xc000'0102, tsc_aux = 0xc000'0103, kvm_wall_clock_new = 0x4b56'4d00,
                          kvm_system_time_new = 0x4b56'4d01;
}

// Where an MSR without side effects of its own stands in CpuState::msrs. Numbers are part of the saved form.
enum class MsrSlot : uint8_t {
  SysenterCs = 0,
  SysenterEsp = 1,
  SysenterEip = 2,
  Star = 3,
  Lstar = 4,
  Cstar = 5,
  Sfmask = 6,
  KernelGsBase = 7,
  TscAux = 8,
  Pat = 9,
  MiscEnable = 10,
  SpecCtrl = 11,
  MtrrDefType = 12,
  TscAdjust = 13,
  KvmSystemTime = 14,
  KvmWallClock = 15,
  McgStatus = 16,
  FeatureControl = 17,
  MtrrPhys0 = 20,   // 16 slots: base and mask of 8 variable ranges
  MtrrFixed0 = 40,  // 11 slots
};

}  // namespace caisson::x86
