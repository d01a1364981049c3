// Preconditions of FPU instructions, by instruction set.
//   Source   Intel SDM vol. 2, 2.4-2.8 (exception classes); vol. 3, 2.5 (CR0.EM, TS, MP), 13.1
#include "jit/interpret/simd_features.h"

#include <Zydis/SharedTypes.h>

#include "jit/interpret/fpu_state.h"
#include "jit/interpret/privilege.h"

// Zydis's generated enum has no header of its own.
#include <Zydis/MetaInfo.h>

namespace caisson::jit {
namespace {

using namespace x86;

enum class Kind : uint8_t { Unknown, X87, Mmx, Sse, Vex, Avx512 };

struct Needs {
  Kind kind = Kind::Unknown;
  Feature first = Feature::Count, second = Feature::Count;  // Count: none
  bool vector_length = false;                               // AVX-512VL
};

constexpr std::array<Needs, ZYDIS_ISA_SET_MAX_VALUE + 1> make_needs() {
  std::array<Needs, ZYDIS_ISA_SET_MAX_VALUE + 1> table{};
  const auto set = [&](ZydisISASet isa, Kind kind, Feature first = Feature::Count, Feature second = Feature::Count) {
    table[isa] = {kind, first, second, false};
  };
  // The three sets of 128, 256 and 512 bits stand in this order.
  const auto three = [&](ZydisISASet isa128, Feature first, Feature second = Feature::Avx512f) {
    for (unsigned i = 0; i < 3; ++i) table[isa128 + i] = {Kind::Avx512, first, second, i < 2};
  };
  set(ZYDIS_ISA_SET_X87, Kind::X87);
  set(ZYDIS_ISA_SET_FCMOV, Kind::X87);
  set(ZYDIS_ISA_SET_PPRO, Kind::X87);  // FCOMI …
  set(ZYDIS_ISA_SET_SSE3X87, Kind::X87, Feature::Sse3);
  set(ZYDIS_ISA_SET_PENTIUMMMX, Kind::Mmx);
  set(ZYDIS_ISA_SET_SSE2MMX, Kind::Mmx);
  set(ZYDIS_ISA_SET_SSSE3MMX, Kind::Mmx, Feature::Ssse3);
  set(ZYDIS_ISA_SET_SSE, Kind::Sse);
  set(ZYDIS_ISA_SET_SSE2, Kind::Sse);
  set(ZYDIS_ISA_SET_SSE3, Kind::Sse, Feature::Sse3);
  set(ZYDIS_ISA_SET_SSSE3, Kind::Sse, Feature::Ssse3);
  set(ZYDIS_ISA_SET_SSE4, Kind::Sse, Feature::Sse41);
  set(ZYDIS_ISA_SET_SSE42, Kind::Sse, Feature::Sse42);
  set(ZYDIS_ISA_SET_AES, Kind::Sse, Feature::Aes);
  set(ZYDIS_ISA_SET_PCLMULQDQ, Kind::Sse, Feature::Pclmulqdq);
  set(ZYDIS_ISA_SET_SHA, Kind::Sse, Feature::Sha);
  set(ZYDIS_ISA_SET_GFNI, Kind::Sse, Feature::Gfni);
  set(ZYDIS_ISA_SET_AVX, Kind::Vex, Feature::Avx);
  set(ZYDIS_ISA_SET_AVX2, Kind::Vex, Feature::Avx2);
  set(ZYDIS_ISA_SET_AVX2GATHER, Kind::Vex, Feature::Avx2);
  set(ZYDIS_ISA_SET_AVXAES, Kind::Vex, Feature::Avx, Feature::Aes);
  set(ZYDIS_ISA_SET_AVX_GFNI, Kind::Vex, Feature::Avx, Feature::Gfni);
  set(ZYDIS_ISA_SET_F16C, Kind::Vex, Feature::Avx, Feature::F16c);
  set(ZYDIS_ISA_SET_FMA, Kind::Vex, Feature::Avx, Feature::Fma);
  set(ZYDIS_ISA_SET_VAES, Kind::Vex, Feature::Avx, Feature::Vaes);
  set(ZYDIS_ISA_SET_VPCLMULQDQ, Kind::Vex, Feature::Avx, Feature::Vpclmulqdq);
  for (const auto isa : {ZYDIS_ISA_SET_AVX512F_128N, ZYDIS_ISA_SET_AVX512F_512, ZYDIS_ISA_SET_AVX512F_KOP,
                         ZYDIS_ISA_SET_AVX512F_SCALAR}) {
    set(isa, Kind::Avx512, Feature::Avx512f);
  }
  for (const auto isa : {ZYDIS_ISA_SET_AVX512F_128, ZYDIS_ISA_SET_AVX512F_256}) {
    table[isa] = {Kind::Avx512, Feature::Avx512f, Feature::Count, true};
  }
  for (const auto isa : {ZYDIS_ISA_SET_AVX512BW_128N, ZYDIS_ISA_SET_AVX512BW_512, ZYDIS_ISA_SET_AVX512BW_KOP}) {
    set(isa, Kind::Avx512, Feature::Avx512bw);
  }
  for (const auto isa : {ZYDIS_ISA_SET_AVX512BW_128, ZYDIS_ISA_SET_AVX512BW_256}) {
    table[isa] = {Kind::Avx512, Feature::Avx512bw, Feature::Count, true};
  }
  for (const auto isa : {ZYDIS_ISA_SET_AVX512DQ_128N, ZYDIS_ISA_SET_AVX512DQ_512, ZYDIS_ISA_SET_AVX512DQ_KOP,
                         ZYDIS_ISA_SET_AVX512DQ_SCALAR}) {
    set(isa, Kind::Avx512, Feature::Avx512dq);
  }
  for (const auto isa : {ZYDIS_ISA_SET_AVX512DQ_128, ZYDIS_ISA_SET_AVX512DQ_256}) {
    table[isa] = {Kind::Avx512, Feature::Avx512dq, Feature::Count, true};
  }
  three(ZYDIS_ISA_SET_AVX512CD_128, Feature::Avx512cd);
  three(ZYDIS_ISA_SET_AVX512_BITALG_128, Feature::Avx512Bitalg);
  three(ZYDIS_ISA_SET_AVX512_GFNI_128, Feature::Gfni);
  three(ZYDIS_ISA_SET_AVX512_IFMA_128, Feature::Avx512Ifma);
  three(ZYDIS_ISA_SET_AVX512_VAES_128, Feature::Vaes);
  three(ZYDIS_ISA_SET_AVX512_VBMI2_128, Feature::Avx512Vbmi2);
  three(ZYDIS_ISA_SET_AVX512_VBMI_128, Feature::Avx512Vbmi);
  three(ZYDIS_ISA_SET_AVX512_VNNI_128, Feature::Avx512Vnni);
  three(ZYDIS_ISA_SET_AVX512_VPCLMULQDQ_128, Feature::Vpclmulqdq);
  three(ZYDIS_ISA_SET_AVX512_VPOPCNTDQ_128, Feature::Avx512Vpopcntdq);
  return table;
}

constexpr auto needs_table = make_needs();

bool x87_allowed(Step& step) {
  const uint64_t cr0_value = step.cpu.cr0;
  if (step.in.mnemonic == ZYDIS_MNEMONIC_FWAIT) {
    constexpr uint64_t both = cr0::mp | cr0::ts;
    return (cr0_value & both) != both || raise(step.cpu, Nm);
  }
  return !(cr0_value & (cr0::em | cr0::ts)) || raise(step.cpu, Nm);
}

}  // namespace

bool simd_allowed(Step& step) {
  Cpu& cpu = step.cpu;
  const Needs& needs = needs_table[step.in.isa_set];
  const auto missing = [&](Feature feature) { return feature != Feature::Count && !cpu.model->has(feature); };
  if (needs.kind == Kind::Unknown || missing(needs.first) || missing(needs.second) ||
      (needs.vector_length && !cpu.model->has(Feature::Avx512vl))) {
    return raise(cpu, Ud);
  }
  constexpr uint64_t avx_state = xstate::sse | xstate::avx;
  constexpr uint64_t avx512_state = avx_state | xstate::opmask | xstate::zmm_hi256 | xstate::hi16_zmm;
  switch (needs.kind) {
    case Kind::X87: return x87_allowed(step);
    case Kind::Mmx:
      if (cpu.cr0 & cr0::em) return raise(cpu, Ud);
      break;
    case Kind::Sse:
      if ((cpu.cr0 & cr0::em) || !(cpu.cr4 & cr4::osfxsr)) return raise(cpu, Ud);
      break;
    default: {
      const uint64_t state = needs.kind == Kind::Vex ? avx_state : avx512_state;
      if (!protected_mode(cpu) || !(cpu.cr4 & cr4::osxsave) || (cpu.xcr0 & state) != state) return raise(cpu, Ud);
      break;
    }
  }
  return !(cpu.cr0 & cr0::ts) || raise(cpu, Nm);
}

}  // namespace caisson::jit
