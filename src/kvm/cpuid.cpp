#include "kvm/cpuid.h"

#include <algorithm>
#include <cerrno>

#include "kvm/lists.h"

namespace caisson::kvm {
namespace {

// Feature words: only what the host's KVM supports gets through, and what the machine's own devices make (local APIC,
// its timer), what only describes, and what the kernel emulates on every host.
struct FeatureWord {
  uint32_t leaf;
  uint32_t subleaf;
  uint32_t kvm_cpuid_entry2::*reg;
  uint32_t always;
};
constexpr uint32_t bit(unsigned n) { return 1u << n; }
constexpr FeatureWord feature_words[] = {
    // x2APIC, TSC deadline, hypervisor
    {1, 0, &kvm_cpuid_entry2::ecx, bit(21) | bit(24) | bit(31)},
    // TSC, MSR, MCE, APIC, MTRR, MCA, PAT, self-snoop, several logical processors
    {1, 0, &kvm_cpuid_entry2::edx, bit(4) | bit(5) | bit(7) | bit(9) | bit(12) | bit(14) | bit(16) | bit(27) | bit(28)},
    // TSC_ADJUST; FDP_EXCPTN_ONLY, ERMS and zero FCS/FDS describe
    {7, 0, &kvm_cpuid_entry2::ebx, bit(1) | bit(6) | bit(9) | bit(13)},
    {7, 0, &kvm_cpuid_entry2::ecx, 0},
    // FSRM describes; IA32_ARCH_CAPABILITIES is ours
    {7, 0, &kvm_cpuid_entry2::edx, bit(4) | bit(29)},
    {0xd, 1, &kvm_cpuid_entry2::eax, 0},
    {0x8000'0001, 0, &kvm_cpuid_entry2::ecx, 0},
    {0x8000'0001, 0, &kvm_cpuid_entry2::edx, 0},
};

const kvm_cpuid_entry2* find(const std::vector<kvm_cpuid_entry2>& entries, uint32_t leaf, uint32_t subleaf) {
  const auto found = std::ranges::find_if(
      entries, [&](const kvm_cpuid_entry2& entry) { return entry.function == leaf && entry.index == subleaf; });
  return found == entries.end() ? nullptr : &*found;
}

}  // namespace

Result<std::vector<kvm_cpuid_entry2>> supported_cpuid(const KvmDevice& device) {
  for (uint32_t count = 128; count <= 4096; count *= 2) {
    const List<kvm_cpuid_entry2> list{count};
    if (control(device.fd(), get_supported_cpuid, list.get()) == 0) {
      return std::vector<kvm_cpuid_entry2>(list.entries().begin(), list.entries().end());
    }
    if (errno != E2BIG) break;
  }
  return fail_errno(errno, "/dev/kvm: ask for the CPU's features; use --engine jit");
}

std::vector<kvm_cpuid_entry2> cpuid_entries(const x86::CpuModel& model, const std::vector<kvm_cpuid_entry2>& supported,
                                            uint32_t apic_id) {
  std::vector<kvm_cpuid_entry2> entries;
  const kvm_cpuid_entry2* state = find(supported, 0xd, 0);
  const uint64_t xcr0 = model.xcr0_allowed() & (state == nullptr ? 3 : uint64_t{state->edx} << 32 | state->eax);
  const x86::CpuModel::Context context{.apic_id = apic_id};
  const auto add = [&](uint32_t leaf, uint32_t subleaf, bool indexed) {
    const x86::CpuidResult from = model.cpuid(leaf, subleaf, context);
    kvm_cpuid_entry2 entry{};
    entry.function = leaf;
    entry.index = subleaf;
    entry.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    entry.eax = from.eax;
    entry.ebx = from.ebx;
    entry.ecx = from.ecx;
    entry.edx = from.edx;
    for (const FeatureWord& word : feature_words) {
      if (word.leaf != leaf || word.subleaf != subleaf) continue;
      const kvm_cpuid_entry2* can = find(supported, leaf, subleaf);
      entry.*word.reg &= word.always | (can == nullptr ? 0 : can->*word.reg);
    }
    entries.push_back(entry);
  };
  const uint32_t last_basic = model.cpuid(0, 0, context).eax;
  for (uint32_t leaf = 0; leaf <= last_basic; ++leaf) {
    switch (leaf) {
      case 4:
        for (uint32_t i = 0; i < 8; ++i) {
          add(leaf, i, true);
          if ((entries.back().eax & 0x1f) == 0) break;
        }
        break;
      case 7: add(leaf, 0, true); break;
      case 0xb:
      case 0x1f:
        for (uint32_t i = 0; i < 3; ++i) add(leaf, i, true);
        break;
      case 0xd:
        add(leaf, 0, true);
        if (entries.back().eax == 0) break;
        entries.back().eax = static_cast<uint32_t>(xcr0);
        entries.back().edx = static_cast<uint32_t>(xcr0 >> 32);
        entries.back().ecx = model.xsave_size(xcr0);
        add(leaf, 1, true);
        for (uint32_t i = 2; i < 63; ++i) {
          if ((xcr0 >> i & 1) != 0) add(leaf, i, true);
        }
        break;
      default: add(leaf, 0, false); break;
    }
  }
  const uint32_t last_hypervisor = model.cpuid(0x4000'0000, 0, context).eax;
  for (uint32_t leaf = 0x4000'0000; leaf <= last_hypervisor; ++leaf) add(leaf, 0, false);
  const uint32_t last_extended = model.cpuid(0x8000'0000, 0, context).eax;
  for (uint32_t leaf = 0x8000'0000; leaf <= last_extended; ++leaf) add(leaf, 0, false);
  return entries;
}

Result<> set_cpuid(int vcpu_fd, const std::vector<kvm_cpuid_entry2>& entries) {
  const List<kvm_cpuid_entry2> list{static_cast<uint32_t>(entries.size())};
  std::ranges::copy(entries, list.entries().begin());
  if (control(vcpu_fd, set_cpuid2, list.get()) != 0) {
    return fail_errno(errno, "/dev/kvm: set the CPU model; use another --cpu-model or --engine jit");
  }
  return {};
}

}  // namespace caisson::kvm
