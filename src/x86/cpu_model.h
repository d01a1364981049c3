// CPU models: what CPUID says, and with it which instructions and MSRs exist.
//   Source   Intel SDM vol. 2A, CPUID; psABI x86-64 levels (v2, v3, v4)
//   Threads  immutable after create()
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::x86 {

struct CpuidResult {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
};

// The local APIC timer's input clock (before its divider), which is also the "crystal" of leaf 0x15: Linux takes one
// for the other.
inline constexpr uint64_t apic_timer_hz = 1'000'000'000;

// Instruction-set groups an engine may have to check before it runs an instruction (else #UD).
enum class Feature : uint8_t {
  Sse3,
  Pclmulqdq,
  Ssse3,
  Fma,
  Cx16,
  Sse41,
  Sse42,
  Movbe,
  Popcnt,
  Aes,
  Xsave,
  Avx,
  F16c,
  Rdrand,
  Fsgsbase,
  Bmi1,
  Avx2,
  Smep,
  Bmi2,
  Erms,
  Invpcid,
  Avx512f,
  Avx512dq,
  Rdseed,
  Adx,
  Smap,
  Avx512Ifma,
  Clflushopt,
  Clwb,
  Avx512cd,
  Sha,
  Avx512bw,
  Avx512vl,
  Avx512Vbmi,
  Umip,
  Avx512Vbmi2,
  Gfni,
  Vaes,
  Vpclmulqdq,
  Avx512Vnni,
  Avx512Bitalg,
  Avx512Vpopcntdq,
  Rdpid,
  Fsrm,
  Xsaveopt,
  Xsavec,
  Xgetbv1,
  Lzcnt,
  Prefetchw,
  Lahf64,
  Syscall,
  Nx,
  Pdpe1gb,
  Rdtscp,
  LongMode,
  Pcid,
  X2apic,
  TscDeadline,
  Count
};

class CpuModel {
 public:
  // `name`: "x86-64-v2", "x86-64-v3", "x86-64-v4" or "host". An error where the host's CPU lacks what the model has.
  // `cpus`: how many CPUs the machine has (for the topology leaves). `tsc_hz`: frequency of the guest's TSC.
  [[nodiscard]] static Result<CpuModel> create(std::string_view name, unsigned cpus, uint64_t tsc_hz);
  // The CPU under the engine: its CPUID, and the XCR0 that its operating system has set (0 without OSXSAVE).
  struct Host {
    std::function<CpuidResult(uint32_t leaf, uint32_t subleaf)> cpuid;
    uint64_t xcr0 = 0;
  };
  [[nodiscard]] static Host this_host();
  // As create(), on a given host.
  [[nodiscard]] static Result<CpuModel> create_on(const Host& host, std::string_view name, unsigned cpus,
                                                  uint64_t tsc_hz);
  [[nodiscard]] static std::string_view best_for(const Host& host);
  // The best level that this host can run.
  [[nodiscard]] static std::string_view best_for_host();

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool has(Feature feature) const { return features_[static_cast<size_t>(feature)]; }
  // XCR0 bits a guest may set (subset of the host's).
  [[nodiscard]] uint64_t xcr0_allowed() const { return xcr0_allowed_; }
  // Bytes of a standard-format XSAVE area with the given XCR0.
  [[nodiscard]] uint32_t xsave_size(uint64_t xcr0) const;

  // State of the asking CPU that shows in CPUID.
  struct Context {
    uint32_t apic_id = 0;
    uint64_t cr4 = 0;
    uint64_t xcr0 = 1;
    bool apic_enabled = true;
  };
  [[nodiscard]] CpuidResult cpuid(uint32_t leaf, uint32_t subleaf, const Context& context) const;

  // No more bits of physical addresses than these, at least 40. Before anybody asks.
  void limit_physical_bits(unsigned bits);
  // Number of physical address bits the model reports.
  [[nodiscard]] unsigned physical_bits() const { return physical_bits_; }
  // IA32_ARCH_CAPABILITIES as the guest reads it: the guest need not defend against the host CPU's side channels
  // itself.
  [[nodiscard]] uint64_t arch_capabilities() const;

 private:
  struct Leaf {
    uint32_t leaf;
    uint32_t subleaf;
    CpuidResult result;
  };

  CpuModel() = default;
  void add_cache_leaves(const Host& host, bool host_identity);
  void add_state_leaves(const Host& host);
  void add_time_leaves();
  void set_brand(std::string_view brand);
  [[nodiscard]] CpuidResult& row(uint32_t leaf, uint32_t subleaf);
  [[nodiscard]] const CpuidResult* find(uint32_t leaf, uint32_t subleaf) const;
  [[nodiscard]] CpuidResult topology(uint32_t subleaf, uint32_t apic_id) const;
  [[nodiscard]] uint32_t xsave_compact_size(uint64_t xcr0) const;

  std::string name_;
  std::array<bool, static_cast<size_t>(Feature::Count)> features_{};
  uint64_t xcr0_allowed_ = 3;
  unsigned physical_bits_ = 40;
  unsigned cpus_ = 1;
  uint64_t tsc_hz_ = 0;
  std::vector<Leaf> leaves_;
};

}  // namespace caisson::x86
