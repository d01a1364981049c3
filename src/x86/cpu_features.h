// CPUID feature bits that a guest may see: one row each, the only place that names their positions.
//   Spec     Intel SDM vol. 2A, CPUID (order of the rows: leaf, sub-leaf, register, bit); psABI x86-64
//   micro-architecture levels Omits    everything without a row: AMX, PKU, CET, XSAVES, TSX, MPX, SGX, MONITOR, VMX,
//   LA57, performance monitoring …
//            The engine knows no such instructions; a guest that uses them anyway gets #UD.
//   Threads  constants
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "x86/cpu_model.h"

namespace caisson::x86 {

enum class CpuidRegister : uint8_t { Eax, Ebx, Ecx, Edx };

// Who makes the feature: the host's CPU, whose instructions run as they are, or the engine, on any host.
enum class Provider : uint8_t { Host, Engine };

// The least model that has the feature. `Host`: only the model "host", where the host's CPU has it. `Trait`: not an
// ability but how the host's own instructions behave, shown in every model as the host has it.
enum class Level : uint8_t { V2, V3, V4, Host, Trait };

// XCR0 bits without which the feature's registers do not exist.
namespace xstate {
inline constexpr uint64_t x87 = 1u << 0, sse = 1u << 1, avx = 1u << 2, opmask = 1u << 5, zmm_hi256 = 1u << 6,
                          hi16_zmm = 1u << 7;
inline constexpr uint64_t legacy = x87 | sse, avx512 = avx | opmask | zmm_hi256 | hi16_zmm;
}  // namespace xstate

struct CpuFeature {
  std::string_view name;
  std::optional<Feature> feature;  // none: no engine ever asks for it
  uint32_t leaf;
  uint32_t subleaf;
  CpuidRegister reg;
  uint8_t bit;
  Level level;
  Provider provider;
  uint64_t state = 0;  // XCR0 bits it needs
};

// Short names for the rows below only.
namespace feature_rows {
inline constexpr auto eax = CpuidRegister::Eax, ebx = CpuidRegister::Ebx, ecx = CpuidRegister::Ecx,
                      edx = CpuidRegister::Edx;
inline constexpr auto v2 = Level::V2, v3 = Level::V3, v4 = Level::V4, host = Level::Host, trait = Level::Trait;
inline constexpr auto native = Provider::Host, engine = Provider::Engine;
inline constexpr std::nullopt_t none = std::nullopt;
using F = Feature;

// clang-format off
inline constexpr CpuFeature cpu_features[] = {
    // 1 ECX
    {"sse3", F::Sse3, 1, 0, ecx, 0, v2, native},
    {"pclmulqdq", F::Pclmulqdq, 1, 0, ecx, 1, v3, native},
    {"ssse3", F::Ssse3, 1, 0, ecx, 9, v2, native},
    {"fma", F::Fma, 1, 0, ecx, 12, v3, native, xstate::avx},
    {"cx16", F::Cx16, 1, 0, ecx, 13, v2, native},
    {"pcid", F::Pcid, 1, 0, ecx, 17, v2, engine},
    {"sse4.1", F::Sse41, 1, 0, ecx, 19, v2, native},
    {"sse4.2", F::Sse42, 1, 0, ecx, 20, v2, native},
    {"x2apic", F::X2apic, 1, 0, ecx, 21, v2, engine},
    {"movbe", F::Movbe, 1, 0, ecx, 22, v3, native},
    {"popcnt", F::Popcnt, 1, 0, ecx, 23, v2, native},
    {"tsc-deadline", F::TscDeadline, 1, 0, ecx, 24, v2, engine},
    {"aes", F::Aes, 1, 0, ecx, 25, v3, native},
    {"xsave", F::Xsave, 1, 0, ecx, 26, v3, native, xstate::legacy},
    {"avx", F::Avx, 1, 0, ecx, 28, v3, native, xstate::avx},
    {"f16c", F::F16c, 1, 0, ecx, 29, v3, native, xstate::avx},
    {"rdrand", F::Rdrand, 1, 0, ecx, 30, v3, native},
    {"hypervisor", none, 1, 0, ecx, 31, v2, engine},
    // 1 EDX
    {"fpu", none, 1, 0, edx, 0, v2, native},
    {"de", none, 1, 0, edx, 2, v2, engine},
    {"pse", none, 1, 0, edx, 3, v2, engine},
    {"tsc", none, 1, 0, edx, 4, v2, engine},
    {"msr", none, 1, 0, edx, 5, v2, engine},
    {"pae", none, 1, 0, edx, 6, v2, engine},
    {"mce", none, 1, 0, edx, 7, v2, engine},
    {"cx8", none, 1, 0, edx, 8, v2, native},
    {"apic", none, 1, 0, edx, 9, v2, engine},
    {"sep", none, 1, 0, edx, 11, v2, engine},
    {"mtrr", none, 1, 0, edx, 12, v2, engine},
    {"pge", none, 1, 0, edx, 13, v2, engine},
    {"mca", none, 1, 0, edx, 14, v2, engine},
    {"cmov", none, 1, 0, edx, 15, v2, native},
    {"pat", none, 1, 0, edx, 16, v2, engine},
    {"pse36", none, 1, 0, edx, 17, v2, engine},
    {"clflush", none, 1, 0, edx, 19, v2, native},
    {"mmx", none, 1, 0, edx, 23, v2, native},
    {"fxsr", none, 1, 0, edx, 24, v2, native},
    {"sse", none, 1, 0, edx, 25, v2, native},
    {"sse2", none, 1, 0, edx, 26, v2, native},
    {"ss", none, 1, 0, edx, 27, v2, engine},
    // 6 EAX: the local APIC's timer runs in every power state
    {"arat", none, 6, 0, eax, 2, v2, engine},
    // 7.0 EBX
    {"fsgsbase", F::Fsgsbase, 7, 0, ebx, 0, v2, engine},
    {"tsc-adjust", none, 7, 0, ebx, 1, v2, engine},
    {"bmi1", F::Bmi1, 7, 0, ebx, 3, v3, native},
    {"avx2", F::Avx2, 7, 0, ebx, 5, v3, native, xstate::avx},
    {"fdp-excptn-only", none, 7, 0, ebx, 6, trait, native},
    {"smep", F::Smep, 7, 0, ebx, 7, v2, engine},
    {"bmi2", F::Bmi2, 7, 0, ebx, 8, v3, native},
    {"erms", F::Erms, 7, 0, ebx, 9, v2, engine},
    {"invpcid", F::Invpcid, 7, 0, ebx, 10, v2, engine},
    {"zero-fcs-fds", none, 7, 0, ebx, 13, trait, native},
    {"avx512f", F::Avx512f, 7, 0, ebx, 16, v4, native, xstate::avx512},
    {"avx512dq", F::Avx512dq, 7, 0, ebx, 17, v4, native, xstate::avx512},
    {"rdseed", F::Rdseed, 7, 0, ebx, 18, v4, native},
    {"adx", F::Adx, 7, 0, ebx, 19, v4, native},
    {"smap", F::Smap, 7, 0, ebx, 20, v2, engine},
    {"avx512ifma", F::Avx512Ifma, 7, 0, ebx, 21, host, native, xstate::avx512},
    {"clflushopt", F::Clflushopt, 7, 0, ebx, 23, v4, native},
    {"clwb", F::Clwb, 7, 0, ebx, 24, v4, native},
    {"avx512cd", F::Avx512cd, 7, 0, ebx, 28, v4, native, xstate::avx512},
    {"sha", F::Sha, 7, 0, ebx, 29, host, native},
    {"avx512bw", F::Avx512bw, 7, 0, ebx, 30, v4, native, xstate::avx512},
    {"avx512vl", F::Avx512vl, 7, 0, ebx, 31, v4, native, xstate::avx512},
    // 7.0 ECX
    {"avx512vbmi", F::Avx512Vbmi, 7, 0, ecx, 1, host, native, xstate::avx512},
    {"umip", F::Umip, 7, 0, ecx, 2, v2, engine},
    {"avx512vbmi2", F::Avx512Vbmi2, 7, 0, ecx, 6, host, native, xstate::avx512},
    {"gfni", F::Gfni, 7, 0, ecx, 8, host, native},
    {"vaes", F::Vaes, 7, 0, ecx, 9, host, native, xstate::avx},
    {"vpclmulqdq", F::Vpclmulqdq, 7, 0, ecx, 10, host, native, xstate::avx},
    {"avx512vnni", F::Avx512Vnni, 7, 0, ecx, 11, host, native, xstate::avx512},
    {"avx512bitalg", F::Avx512Bitalg, 7, 0, ecx, 12, host, native, xstate::avx512},
    {"avx512vpopcntdq", F::Avx512Vpopcntdq, 7, 0, ecx, 14, host, native, xstate::avx512},
    {"rdpid", F::Rdpid, 7, 0, ecx, 22, v2, engine},
    // 7.0 EDX. spec-ctrl comes with arch-capabilities: the guest sees IBRS_ALL and needs no defence that costs anything.
    {"fsrm", F::Fsrm, 7, 0, edx, 4, v2, engine},
    {"serialize", none, 7, 0, edx, 14, v2, engine},
    {"spec-ctrl", none, 7, 0, edx, 26, v2, engine},
    {"arch-capabilities", none, 7, 0, edx, 29, v2, engine},
    // 0xd.1 EAX
    {"xsaveopt", F::Xsaveopt, 0xd, 1, eax, 0, v3, native, xstate::legacy},
    {"xsavec", F::Xsavec, 0xd, 1, eax, 1, v4, native, xstate::legacy},
    {"xgetbv1", F::Xgetbv1, 0xd, 1, eax, 2, v4, native, xstate::legacy},
    // 0x80000001
    {"lahf64", F::Lahf64, 0x8000'0001, 0, ecx, 0, v2, native},
    {"lzcnt", F::Lzcnt, 0x8000'0001, 0, ecx, 5, v3, native},
    {"prefetchw", F::Prefetchw, 0x8000'0001, 0, ecx, 8, v4, native},
    {"syscall", F::Syscall, 0x8000'0001, 0, edx, 11, v2, engine},
    {"nx", F::Nx, 0x8000'0001, 0, edx, 20, v2, engine},
    {"pdpe1gb", F::Pdpe1gb, 0x8000'0001, 0, edx, 26, v2, engine},
    {"rdtscp", F::Rdtscp, 0x8000'0001, 0, edx, 27, v2, engine},
    {"lm", F::LongMode, 0x8000'0001, 0, edx, 29, v2, native},
    // 0x80000007
    {"invariant-tsc", none, 0x8000'0007, 0, edx, 8, v2, engine},
};
// clang-format on
}  // namespace feature_rows
using feature_rows::cpu_features;

}  // namespace caisson::x86
