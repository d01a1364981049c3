// CPU models.
//   Spec     Intel SDM vol. 2A, CPUID (leaf numbers below); Linux Documentation/virt/kvm/x86/cpuid.rst for 0x40000001
//   Models   one package, one thread per core, APIC id = CPU's index; caches, topology, XSAVE, TSC and KVM clock leaves
//   Omits    leaves 3, 5, 9, 0xa, 0xf…0x14, 0x17…0x1e (all zero: serial number, MONITOR, performance counters, SGX, PT
//   …) Threads  immutable after create()
#include "x86/cpu_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include <cpuid.h>

#include "x86/cpu_features.h"
#include "x86/registers.h"

namespace caisson::x86 {

namespace {

constexpr uint32_t max_basic = 0x1f, max_hypervisor = 0x4000'0010, max_extended = 0x8000'0008;
// Family 6, model 143, stepping 8: Sapphire Rapids. An identity whose side channels Linux takes as mended (see
// arch_capabilities()), with no erratum that the engine would have to copy.
constexpr uint32_t named_signature = 0x000806f8;

constexpr uint32_t cpuid1_apic = 1u << 9, cpuid1_htt = 1u << 28, cpuid1_osxsave = 1u << 27;

// 0x40000001 EAX; the KVM clock is the only paravirtual service.
constexpr uint32_t kvm_nop_io_delay = 1u << 1, kvm_clocksource2 = 1u << 3, kvm_clocksource_stable = 1u << 24;

struct NamedModel {
  std::string_view name;
  Level level;
  std::string_view brand;
};
constexpr NamedModel named_models[] = {
    {"x86-64-v2", Level::V2, "Caisson Virtual CPU v2"},
    {"x86-64-v3", Level::V3, "Caisson Virtual CPU v3"},
    {"x86-64-v4", Level::V4, "Caisson Virtual CPU v4"},
};

uint32_t& reg_of(CpuidResult& result, CpuidRegister reg) {
  switch (reg) {
    case CpuidRegister::Eax: return result.eax;
    case CpuidRegister::Ebx: return result.ebx;
    case CpuidRegister::Ecx: return result.ecx;
    case CpuidRegister::Edx: break;
  }
  return result.edx;
}

bool host_has(const CpuModel::Host& host, const CpuFeature& feature) {
  const uint32_t max = host.cpuid(feature.leaf & 0x8000'0000, 0).eax;
  if (feature.leaf > max || (host.xcr0 & feature.state) != feature.state) return false;
  CpuidResult result = host.cpuid(feature.leaf, feature.subleaf);
  return (reg_of(result, feature.reg) >> feature.bit & 1) != 0;
}

bool offered(const CpuModel::Host& host, Level level, const CpuFeature& feature) {
  if (feature.level == Level::Trait) return host_has(host, feature);
  if (feature.provider == Provider::Engine) return feature.level <= level;
  if (level == Level::Host) return host_has(host, feature);
  return feature.level <= level;
}

std::string missing_on(const CpuModel::Host& host, Level level) {
  std::string names;
  if (level == Level::Host) return names;
  for (const CpuFeature& feature : cpu_features) {
    if (feature.provider != Provider::Host || feature.level > level || host_has(host, feature)) continue;
    if (!names.empty()) names += ", ";
    names += feature.name;
  }
  return names;
}

bool is_intel(const CpuModel::Host& host) {
  const CpuidResult vendor = host.cpuid(0, 0);
  return vendor.ebx == 0x756e'6547 && vendor.edx == 0x4965'6e69 && vendor.ecx == 0x6c65'746e;
}

std::string brand_of(const CpuModel::Host& host) {
  if (host.cpuid(0x8000'0000, 0).eax < 0x8000'0004) return {};
  std::string brand;
  for (uint32_t leaf = 0x8000'0002; leaf <= 0x8000'0004; ++leaf) {
    const CpuidResult part = host.cpuid(leaf, 0);
    std::array<char, sizeof part> bytes;
    std::memcpy(bytes.data(), &part, sizeof part);
    brand.append(bytes.data(), bytes.size());
  }
  brand.resize(std::min(brand.find('\0'), brand.size()));
  return brand;
}

// Bits that number `cpus` CPUs within the package.
unsigned id_bits(unsigned cpus) { return static_cast<unsigned>(std::bit_width(cpus - 1)); }

// Best fraction for value/base whose numerator is at most `limit`; 0/1 where there is none.
struct Fraction {
  uint32_t numerator = 0;
  uint32_t denominator = 1;
};
Fraction approximate(uint64_t value, uint64_t base, uint32_t limit) {
  Fraction best;
  const double wanted = static_cast<double>(value) / static_cast<double>(base);
  double best_error = wanted;
  for (uint32_t denominator = 1; denominator <= limit; ++denominator) {
    const double numerator = std::round(wanted * denominator);
    if (numerator > limit) break;
    const double error = std::abs(numerator / denominator - wanted);
    if (error >= best_error) continue;
    best = {static_cast<uint32_t>(numerator), denominator};
    best_error = error;
  }
  return best;
}

}  // namespace

CpuModel::Host CpuModel::this_host() {
  Host host;
  // Each leaf is asked for once: where the host is a virtual machine itself, CPUID leaves it, and takes ten
  // microseconds and more.
  host.cpuid = [known = std::vector<Leaf>{}](uint32_t leaf, uint32_t subleaf) mutable {
    for (const Leaf& one : known) {
      if (one.leaf == leaf && one.subleaf == subleaf) return one.result;
    }
    CpuidResult result;
    __cpuid_count(leaf, subleaf, result.eax, result.ebx, result.ecx, result.edx);
    known.push_back({leaf, subleaf, result});
    return result;
  };
  if ((host.cpuid(1, 0).ecx & cpuid1_osxsave) != 0) {
    uint32_t low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    host.xcr0 = uint64_t{high} << 32 | low;
  }
  return host;
}

std::string_view CpuModel::best_for(const Host& host) {
  std::string_view best = "host";
  for (const NamedModel& model : named_models) {
    if (missing_on(host, model.level).empty()) best = model.name;
  }
  return best;
}

std::string_view CpuModel::best_for_host() { return best_for(this_host()); }

void CpuModel::limit_physical_bits(unsigned bits) {
  physical_bits_ = std::min(physical_bits_, std::max(bits, 40u));
  row(0x8000'0008, 0).eax = physical_bits_ | 48u << 8;
}

Result<CpuModel> CpuModel::create(std::string_view name, unsigned cpus, uint64_t tsc_hz) {
  return create_on(this_host(), name, cpus, tsc_hz);
}

Result<CpuModel> CpuModel::create_on(const Host& host, std::string_view name, unsigned cpus, uint64_t tsc_hz) {
  if (cpus == 0 || cpus > 1024) return fail("{} CPUs: a machine has 1 to 1024", cpus);
  const auto named = std::ranges::find(named_models, name, &NamedModel::name);
  const bool known = named != std::end(named_models);
  if (!known && name != "host") {
    return fail("unknown CPU model \"{}\"; choose x86-64-v2, x86-64-v3, x86-64-v4 or host", name);
  }
  const Level level = known ? named->level : Level::Host;
  if (const std::string names = missing_on(host, level); !names.empty()) {
    return fail("CPU model {}: this computer's CPU lacks {}; choose {}", name, names, best_for(host));
  }

  CpuModel model;
  model.name_ = name;
  model.cpus_ = cpus;
  model.tsc_hz_ = tsc_hz;
  for (const CpuFeature& feature : cpu_features) {
    if (!offered(host, level, feature)) continue;
    if (feature.feature) model.features_[static_cast<size_t>(*feature.feature)] = true;
    reg_of(model.row(feature.leaf, feature.subleaf), feature.reg) |= 1u << feature.bit;
  }
  // SYSENTER, SYSCALL and the machine's MSRs differ between vendors, and the engine is an Intel CPU in these: a host of
  // another vendor lends its instructions, not its identity.
  const bool host_identity = level == Level::Host && is_intel(host);
  model.row(0, 0) = {max_basic, 0x756e'6547, 0x6c65'746e, 0x4965'6e69};  // "GenuineIntel"
  // CLFLUSH line of 8 quadwords; number of ids in the package.
  CpuidResult& first = model.row(1, 0);
  first.eax = host_identity ? host.cpuid(1, 0).eax & 0x0fff'3fff : named_signature;
  first.ebx = 8u << 8;
  if (cpus > 1) {
    first.edx |= cpuid1_htt;
    first.ebx |= std::min(1u << id_bits(cpus), 255u) << 16;
  }
  model.row(0x8000'0000, 0).eax = max_extended;
  const std::string host_brand = level == Level::Host ? brand_of(host) : std::string{};
  model.set_brand(known ? named->brand : host_brand.empty() ? "Caisson Virtual CPU" : std::string_view{host_brand});
  if (level == Level::Host && host.cpuid(0x8000'0000, 0).eax >= 0x8000'0008) {
    model.physical_bits_ = std::clamp(host.cpuid(0x8000'0008, 0).eax & 0xff, 40u, 46u);
  }
  model.limit_physical_bits(model.physical_bits_);
  model.add_cache_leaves(host, host_identity);
  model.add_state_leaves(host);
  model.add_time_leaves();
  return model;
}

// 2: "see leaf 4". 4: L1 and L2 per CPU, L3 of the package. 0x80000006: L2 once more.
void CpuModel::add_cache_leaves(const Host& host, bool host_identity) {
  row(2, 0) = {0x00fe'ff01, 0x0000'00f0, 0, 0};
  std::vector<CpuidResult> caches = {
      {0x121, 0x02c0'003f, 0x3f, 0},    // L1 data, 48 KiB, 12 ways
      {0x122, 0x01c0'003f, 0x3f, 0},    // L1 instructions, 32 KiB, 8 ways
      {0x143, 0x03c0'003f, 0x7ff, 0},   // L2, 2 MiB, 16 ways
      {0x163, 0x03c0'003f, 0x7fff, 4},  // L3, 32 MiB, 16 ways
  };
  if (host_identity && host.cpuid(0, 0).eax >= 4 && (host.cpuid(4, 0).eax & 0x1f) != 0) {
    caches.clear();
    for (uint32_t i = 0; i < 8; ++i) {
      const CpuidResult cache = host.cpuid(4, i);
      if ((cache.eax & 0x1f) == 0) break;
      caches.push_back(cache);
    }
  }
  const uint32_t ids = (1u << id_bits(cpus_)) - 1;
  for (uint32_t i = 0; i < caches.size(); ++i) {
    CpuidResult cache = caches[i];
    const bool shared = (cache.eax >> 5 & 7) >= 3;
    cache.eax = (cache.eax & 0x3ff) | (shared ? std::min(ids, 0xfffu) << 14 : 0) | std::min(ids, 0x3fu) << 26;
    row(4, i) = cache;
    if ((cache.eax >> 5 & 7) != 2) continue;
    const uint32_t ways = (cache.ebx >> 22) + 1, line = (cache.ebx & 0xfff) + 1;
    const uint32_t kib = static_cast<uint32_t>(uint64_t{ways} * line * (uint64_t{cache.ecx} + 1) >> 10);
    const uint32_t code = ways >= 16 ? 8 : ways >= 8 ? 6 : ways >= 4 ? 4 : ways;
    row(0x8000'0006, 0).ecx = std::min(kib, 0xffffu) << 16 | code << 12 | line;
  }
}

// 0xd: the components of the XSAVE area lie where the host's CPU puts them, as its own instructions may write them.
void CpuModel::add_state_leaves(const Host& host) {
  if (!has(Feature::Xsave)) return;
  xcr0_allowed_ = xstate::legacy;
  if (has(Feature::Avx)) xcr0_allowed_ |= xstate::avx;
  if (has(Feature::Avx512f)) xcr0_allowed_ |= xstate::avx512;
  for (uint32_t i = 2; i < 32; ++i) {
    if ((xcr0_allowed_ >> i & 1) == 0) continue;
    const CpuidResult component = host.cpuid(0xd, i);
    row(0xd, i) = {component.eax, component.ebx, component.ecx & 2, 0};  // size, offset, 64-byte aligned when compact
  }
  CpuidResult& all = row(0xd, 0);
  all.eax = static_cast<uint32_t>(xcr0_allowed_);
  all.edx = static_cast<uint32_t>(xcr0_allowed_ >> 32);
  all.ecx = xsave_size(xcr0_allowed_);
}

// 0x15, 0x16, 0x40000000…: how fast the TSC and the local APIC's timer run.
void CpuModel::add_time_leaves() {
  // Linux multiplies the crystal's kHz by the numerator in 32 bits: 10^6 kHz allow at most 4294.
  const Fraction ratio = approximate(tsc_hz_, apic_timer_hz, 4294);
  if (ratio.numerator != 0) {
    row(0x15, 0) = {ratio.denominator, ratio.numerator, static_cast<uint32_t>(apic_timer_hz), 0};
  }
  const uint32_t mhz = static_cast<uint32_t>(std::min<uint64_t>((tsc_hz_ + 500'000) / 1'000'000, 0xffff));
  row(0x16, 0) = {mhz, mhz, 100, 0};
  row(0x4000'0000, 0) = {max_hypervisor, 0x4b4d'564b, 0x564b'4d56, 0x4d};  // "KVMKVMKVM"
  row(0x4000'0001, 0).eax = kvm_nop_io_delay | kvm_clocksource2 | kvm_clocksource_stable;
  row(0x4000'0010, 0) = {static_cast<uint32_t>(tsc_hz_ / 1000), static_cast<uint32_t>(apic_timer_hz / 1000), 0, 0};
}

void CpuModel::set_brand(std::string_view brand) {
  std::array<char, 48> bytes{};
  std::memcpy(bytes.data(), brand.data(), std::min(brand.size(), bytes.size() - 1));
  for (uint32_t i = 0; i < 3; ++i) std::memcpy(&row(0x8000'0002 + i, 0), bytes.data() + 16 * i, 16);
}

CpuidResult& CpuModel::row(uint32_t leaf, uint32_t subleaf) {
  for (Leaf& known : leaves_) {
    if (known.leaf == leaf && known.subleaf == subleaf) return known.result;
  }
  return leaves_.emplace_back(Leaf{leaf, subleaf, {}}).result;
}

const CpuidResult* CpuModel::find(uint32_t leaf, uint32_t subleaf) const {
  for (const Leaf& known : leaves_) {
    if (known.leaf == leaf && known.subleaf == subleaf) return &known.result;
  }
  return nullptr;
}

uint32_t CpuModel::xsave_size(uint64_t xcr0) const {
  uint32_t size = 576;  // legacy region and header, SDM vol. 1, 13.4
  for (uint32_t i = 2; i < 32; ++i) {
    if ((xcr0 >> i & 1) == 0) continue;
    if (const CpuidResult* component = find(0xd, i)) size = std::max(size, component->eax + component->ebx);
  }
  return size;
}

// SDM vol. 1, 13.4.3
uint32_t CpuModel::xsave_compact_size(uint64_t xcr0) const {
  uint32_t size = 576;
  for (uint32_t i = 2; i < 32; ++i) {
    if ((xcr0 >> i & 1) == 0) continue;
    const CpuidResult* component = find(0xd, i);
    if (component == nullptr) continue;
    if ((component->ecx & 2) != 0) size = (size + 63) & ~63u;
    size += component->eax;
  }
  return size;
}

// 0xb and 0x1f: one thread per core, then the cores of the package.
CpuidResult CpuModel::topology(uint32_t subleaf, uint32_t apic_id) const {
  constexpr uint32_t thread = 1u << 8, core = 2u << 8;
  switch (subleaf) {
    case 0: return {0, 1, thread | 0, apic_id};
    case 1: return {id_bits(cpus_), cpus_, core | 1, apic_id};
    default: return {0, 0, subleaf & 0xff, apic_id};
  }
}

CpuidResult CpuModel::cpuid(uint32_t leaf, uint32_t subleaf, const Context& context) const {
  // Beyond the last basic or extended leaf, Intel's CPUs answer as for the last basic one.
  const bool hypervisor = leaf >= 0x4000'0000 && leaf <= 0x4fff'ffff;
  const bool extended = leaf >= 0x8000'0000;
  if (!hypervisor && leaf > (extended ? max_extended : max_basic)) leaf = max_basic;
  if (leaf == 0xb || leaf == 0x1f) return topology(subleaf, context.apic_id);
  const bool indexed = leaf == 4 || leaf == 7 || leaf == 0xd;
  const CpuidResult* found = find(leaf, indexed ? subleaf : 0);
  CpuidResult result = found != nullptr ? *found : CpuidResult{};
  if (leaf == 1) {
    result.ebx |= context.apic_id << 24;
    if ((context.cr4 & cr4::osxsave) != 0 && has(Feature::Xsave)) result.ecx |= cpuid1_osxsave;
    if (!context.apic_enabled) result.edx &= ~cpuid1_apic;
  } else if (leaf == 0xd && has(Feature::Xsave)) {
    if (subleaf == 0) result.ebx = xsave_size(context.xcr0);
    if (subleaf == 1 && has(Feature::Xsavec)) result.ebx = xsave_compact_size(context.xcr0);
  }
  return result;
}

// SDM vol. 4, IA32_ARCH_CAPABILITIES. Linux then leaves out page-table isolation, retpolines, buffer clearing (MDS,
// TAA, MMIO, RFDS), branch-history clearing and the like, which would cost the guest much and, between a guest's own
// processes on a software CPU, is the host's business.
uint64_t CpuModel::arch_capabilities() const {
  constexpr uint64_t rdcl_no = 1u << 0, ibrs_all = 1u << 1, skip_l1dfl_vmentry = 1u << 3, ssb_no = 1u << 4,
                     mds_no = 1u << 5, if_pschange_mc_no = 1u << 6, taa_no = 1u << 8, sbdr_ssdp_no = 1u << 13,
                     fbsdp_no = 1u << 14, psdp_no = 1u << 15, bhi_no = 1u << 20, pbrsb_no = 1u << 24, gds_no = 1u << 26,
                     rfds_no = 1u << 27, its_no = uint64_t{1} << 62;
  return rdcl_no | ibrs_all | skip_l1dfl_vmentry | ssb_no | mds_no | if_pschange_mc_no | taa_no | sbdr_ssdp_no |
         fbsdp_no | psdp_no | bhi_no | pbrsb_no | gds_no | rfds_no | its_no;
}

}  // namespace caisson::x86
