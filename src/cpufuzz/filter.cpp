#include "cpufuzz/filter.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <array>

#include "x86/registers.h"

namespace caisson::cpufuzz {

using jit::Encoding;
using jit::Instruction;
using jit::Operand;

bool never_offered(const Instruction& in) {
  if (in.encoding == Encoding::Xop || in.encoding == Encoding::Now3d) return true;
  static constexpr std::array sets{ZYDIS_ISA_SET_SSE4A,
                                   ZYDIS_ISA_SET_CLZERO,
                                   ZYDIS_ISA_SET_MONITORX,
                                   ZYDIS_ISA_SET_AMX_BF16,
                                   ZYDIS_ISA_SET_AMX_INT8,
                                   ZYDIS_ISA_SET_AMX_TILE,
                                   ZYDIS_ISA_SET_AVX512_BF16_128,
                                   ZYDIS_ISA_SET_AVX512_BF16_256,
                                   ZYDIS_ISA_SET_AVX512_BF16_512,
                                   ZYDIS_ISA_SET_AVX512_FP16_128,
                                   ZYDIS_ISA_SET_AVX512_FP16_128N,
                                   ZYDIS_ISA_SET_AVX512_FP16_256,
                                   ZYDIS_ISA_SET_AVX512_FP16_512,
                                   ZYDIS_ISA_SET_AVX512_FP16_SCALAR,
                                   ZYDIS_ISA_SET_AVX512_VP2INTERSECT_128,
                                   ZYDIS_ISA_SET_AVX512_VP2INTERSECT_256,
                                   ZYDIS_ISA_SET_AVX512_VP2INTERSECT_512,
                                   ZYDIS_ISA_SET_AVX512_4FMAPS_512,
                                   ZYDIS_ISA_SET_AVX512_4FMAPS_SCALAR,
                                   ZYDIS_ISA_SET_AVX512_4VNNIW_512,
                                   ZYDIS_ISA_SET_AVX512ER_512,
                                   ZYDIS_ISA_SET_AVX512ER_SCALAR,
                                   ZYDIS_ISA_SET_AVX512PF_512,
                                   ZYDIS_ISA_SET_KNCE,
                                   ZYDIS_ISA_SET_KNCJKBR,
                                   ZYDIS_ISA_SET_KNCSTREAM,
                                   ZYDIS_ISA_SET_KNCV,
                                   ZYDIS_ISA_SET_KNC_MISC,
                                   ZYDIS_ISA_SET_KNC_PF_HINT,
                                   ZYDIS_ISA_SET_FMA4,
                                   ZYDIS_ISA_SET_LWP,
                                   ZYDIS_ISA_SET_TBM,
                                   ZYDIS_ISA_SET_PADLOCK_ACE,
                                   ZYDIS_ISA_SET_PADLOCK_PHE,
                                   ZYDIS_ISA_SET_PADLOCK_PMM,
                                   ZYDIS_ISA_SET_PADLOCK_RNG,
                                   ZYDIS_ISA_SET_MPX,
                                   ZYDIS_ISA_SET_CET,
                                   ZYDIS_ISA_SET_CLDEMOTE,
                                   ZYDIS_ISA_SET_RDPRU,
                                   ZYDIS_ISA_SET_AVX_VNNI,
                                   ZYDIS_ISA_SET_ENQCMD,
                                   ZYDIS_ISA_SET_HRESET,
                                   ZYDIS_ISA_SET_KEYLOCKER,
                                   ZYDIS_ISA_SET_KEYLOCKER_WIDE,
                                   ZYDIS_ISA_SET_MOVDIR,
                                   ZYDIS_ISA_SET_PCONFIG,
                                   ZYDIS_ISA_SET_PKU,
                                   ZYDIS_ISA_SET_PT,
                                   ZYDIS_ISA_SET_RTM,
                                   ZYDIS_ISA_SET_SERIALIZE,
                                   ZYDIS_ISA_SET_SGX,
                                   ZYDIS_ISA_SET_SGX_ENCLV,
                                   ZYDIS_ISA_SET_SVM,
                                   ZYDIS_ISA_SET_SNP,
                                   ZYDIS_ISA_SET_TDX,
                                   ZYDIS_ISA_SET_TSX_LDTRK,
                                   ZYDIS_ISA_SET_UINTR,
                                   ZYDIS_ISA_SET_VTX,
                                   ZYDIS_ISA_SET_WAITPKG,
                                   ZYDIS_ISA_SET_MCOMMIT};
  return std::find(sets.begin(), sets.end(), in.isa_set) != sets.end();
}

const char* not_comparable(const Instruction& in) {
  switch (in.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_RET:
      return in.far_branch ? "a far transfer: the host's descriptors are the kernel's" : "tested in blocks (flow)";
    case ZYDIS_CATEGORY_RDRAND:
    case ZYDIS_CATEGORY_RDSEED: return "random by nature";
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET: return "the host's kernel would answer";
    case ZYDIS_CATEGORY_INTERRUPT:
      if (in.mnemonic == ZYDIS_MNEMONIC_INT) return "the host's gates are the kernel's";
      break;
    case ZYDIS_CATEGORY_SEGOP: return "the host's descriptors are the kernel's";
    default: break;
  }
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_CPUID: return "the model answers, not the host";
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_RDPMC: return "another clock, another processor number";
    case ZYDIS_MNEMONIC_XGETBV: return "XCR0 is the model's";
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW: return "shows (or with UMIP hides) the host's tables";
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW: return "the host's descriptors are the kernel's";
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: return "XSTATE_BV and layout depend on XCR0, which is the model's";
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64: return "x87 pointers are kept as zero";
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE: return "the harness needs these registers; tests/payloads has them";
    default: break;
  }
  switch (in.mnemonic) {  // called system instructions, but the kernel has no part in them
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE: return nullptr;
    default: break;
  }
  if (in.privileged_or_system) return "privileged: the host's kernel would see it";
  for (unsigned i = 0; i < in.operand_count; ++i) {
    if (in.operands[i].reg_class == jit::RegisterClass::Segment) return "selectors differ";
  }
  return nullptr;
}

uint64_t undefined_flags(const Instruction& in) {
  using namespace x86;
  switch (in.category) {
    // OF with counts above 1, AF always: hosts differ between counts in CL and in the instruction.
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_ROTATE: return rflags::of | rflags::af;
    case ZYDIS_CATEGORY_DECIMAL: return in.flags_undefined;
    default: break;
  }
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS: return rflags::of | rflags::sf | rflags::af | rflags::pf;
    default: break;
  }
  return in.mnemonic == ZYDIS_MNEMONIC_DIV || in.mnemonic == ZYDIS_MNEMONIC_IDIV ? uint64_t{rflags::status} : 0;
}

bool may_fault_under_zero_mask(const Instruction& in) {
  return in.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || in.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
         in.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

bool vague_after_fault(const Instruction& in) {
  if (in.memory() != nullptr && in.memory()->vsib) return true;
  // Masked: which of the faulting bytes is told differs.
  if (in.memory() != nullptr && in.memory()->writes && in.encoding == Encoding::Evex) return true;
  for (unsigned i = 0; i < in.operand_count; ++i) {
    const bool masked = in.operands[i].reg_class == jit::RegisterClass::Mask && in.operands[i].reg != 0;
    if (in.memory() != nullptr && in.encoding == Encoding::Evex && masked) return true;
    if (in.operands[i].reg_class == jit::RegisterClass::Mmx) return true;  // x87 mode may have been left already
  }
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_SHA1MSG1:  // misaligned and not mapped: either fault, not the same on all processors
    case ZYDIS_MNEMONIC_SHA1MSG2:
    case ZYDIS_MNEMONIC_SHA1NEXTE:
    case ZYDIS_MNEMONIC_SHA1RNDS4:
    case ZYDIS_MNEMONIC_SHA256MSG1:
    case ZYDIS_MNEMONIC_SHA256MSG2:
    case ZYDIS_MNEMONIC_SHA256RNDS2:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VCVTPS2PH:
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
    case ZYDIS_MNEMONIC_VPCOMPRESSQ:
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VCOMPRESSPD: return true;
    default: return in.category == ZYDIS_CATEGORY_STRINGOP;
  }
}

}  // namespace caisson::cpufuzz
