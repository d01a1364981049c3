#include "x86/cpu_model.h"

#include <bit>
#include <set>
#include <string>
#include <tuple>

#include <gtest/gtest.h>

#include "x86/cpu_features.h"
#include "x86/registers.h"

namespace caisson::x86 {
namespace {

// A host with every feature of the table and the XSAVE layout of Intel's server CPUs.
CpuidResult full_cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidResult result;
  for (const CpuFeature& feature : cpu_features) {
    if (feature.leaf != leaf || feature.subleaf != subleaf) continue;
    uint32_t* const regs[] = {&result.eax, &result.ebx, &result.ecx, &result.edx};
    *regs[static_cast<size_t>(feature.reg)] |= 1u << feature.bit;
  }
  if (leaf == 0) return {0x20, 0x756e6547, 0x6c65746e, 0x49656e69};
  if (leaf == 1) result.eax = 0x000a0678;
  if (leaf == 0x8000'0000) return {0x8000'0008, 0, 0, 0};
  if (leaf == 0x8000'0008) return {0x3934, 0, 0, 0};
  if (leaf == 0xd && subleaf == 2) return {256, 576, 0, 0};
  if (leaf == 0xd && subleaf == 5) return {64, 1088, 0, 0};
  if (leaf == 0xd && subleaf == 6) return {512, 1152, 0, 0};
  if (leaf == 0xd && subleaf == 7) return {1024, 1664, 0, 0};
  if (leaf == 0xd && subleaf == 9) return {8, 2688, 0, 0};
  return result;
}

CpuModel::Host full_host() { return {full_cpuid, 0x602e7}; }

// The full host without some bits of one register.
CpuModel::Host host_without(uint32_t leaf, uint32_t subleaf, CpuidRegister reg, uint32_t bits) {
  CpuModel::Host host = full_host();
  host.cpuid = [=](uint32_t l, uint32_t s) {
    CpuidResult result = full_cpuid(l, s);
    uint32_t* const regs[] = {&result.eax, &result.ebx, &result.ecx, &result.edx};
    if (l == leaf && s == subleaf) *regs[static_cast<size_t>(reg)] &= ~bits;
    return result;
  };
  return host;
}

CpuModel make(std::string_view name, unsigned cpus = 2) {
  auto model = CpuModel::create_on(full_host(), name, cpus, 2'000'000'000);
  EXPECT_TRUE(model) << model.error().message;
  return std::move(*model);
}

TEST(CpuFeatures, NoBitStandsInTwoRows) {
  std::set<std::tuple<uint32_t, uint32_t, CpuidRegister, uint8_t>> bits;
  std::set<Feature> features;
  for (const CpuFeature& feature : cpu_features) {
    EXPECT_TRUE(bits.emplace(feature.leaf, feature.subleaf, feature.reg, feature.bit).second) << feature.name;
    if (feature.feature) {
      EXPECT_TRUE(features.insert(*feature.feature).second) << feature.name;
    }
  }
  EXPECT_EQ(features.size(), static_cast<size_t>(Feature::Count)) << "a Feature without a row";
}

// psABI, "x86-64 micro-architecture levels".
TEST(CpuModel, LevelsHoldThePsabiSets) {
  const std::vector<Feature> v2 = {Feature::Cx16,  Feature::Lahf64, Feature::Popcnt, Feature::Sse3,
                                   Feature::Sse41, Feature::Sse42,  Feature::Ssse3};
  const std::vector<Feature> v3 = {Feature::Avx, Feature::Avx2,  Feature::Bmi1,  Feature::Bmi2, Feature::F16c,
                                   Feature::Fma, Feature::Lzcnt, Feature::Movbe, Feature::Xsave};
  const std::vector<Feature> v4 = {Feature::Avx512f, Feature::Avx512bw, Feature::Avx512cd, Feature::Avx512dq,
                                   Feature::Avx512vl};
  const CpuModel two = make("x86-64-v2"), three = make("x86-64-v3"), four = make("x86-64-v4"), host = make("host");
  for (const Feature feature : v2) EXPECT_TRUE(two.has(feature));
  for (const Feature feature : v3) {
    EXPECT_FALSE(two.has(feature));
    EXPECT_TRUE(three.has(feature));
  }
  for (const Feature feature : v4) {
    EXPECT_FALSE(three.has(feature));
    EXPECT_TRUE(four.has(feature));
  }
  for (size_t i = 0; i < static_cast<size_t>(Feature::Count); ++i) {
    const auto feature = static_cast<Feature>(i);
    EXPECT_LE(two.has(feature), three.has(feature));
    EXPECT_LE(three.has(feature), four.has(feature));
    EXPECT_LE(four.has(feature), host.has(feature));
    EXPECT_TRUE(host.has(feature));
  }
}

TEST(CpuModel, SystemFeaturesNeedNoHost) {
  CpuModel::Host bare = full_host();
  bare.cpuid = [](uint32_t leaf, uint32_t subleaf) {
    CpuidResult result;
    for (const CpuFeature& feature : cpu_features) {
      if (feature.leaf != leaf || feature.subleaf != subleaf || feature.provider == Provider::Engine) continue;
      uint32_t* const regs[] = {&result.eax, &result.ebx, &result.ecx, &result.edx};
      *regs[static_cast<size_t>(feature.reg)] |= 1u << feature.bit;
    }
    if (leaf == 0) result.eax = 0xd;
    if (leaf == 0x8000'0000) result.eax = 0x8000'0001;
    return result;
  };
  for (const char* name : {"x86-64-v2", "host"}) {
    auto model = CpuModel::create_on(bare, name, 1, 1'000'000'000);
    ASSERT_TRUE(model) << model.error().message;
    for (const Feature feature : {Feature::Pcid, Feature::Invpcid, Feature::Smep, Feature::Smap, Feature::Umip,
                                  Feature::Fsgsbase, Feature::X2apic, Feature::TscDeadline, Feature::Nx,
                                  Feature::Pdpe1gb, Feature::Rdtscp, Feature::Rdpid, Feature::Erms, Feature::Fsrm}) {
      EXPECT_TRUE(model->has(feature));
    }
    EXPECT_EQ(model->cpuid(0, 0, {}).ebx, 0x756e6547u);  // not Intel's host, Intel's identity
  }
}

TEST(CpuModel, NeverOffersWhatTheEngineDoesNotKnow) {
  CpuModel::Host all = full_host();
  all.cpuid = [](uint32_t leaf, uint32_t subleaf) {
    CpuidResult result = full_cpuid(leaf, subleaf);
    if (leaf == 1 || leaf == 7 || leaf == 0x8000'0001 || (leaf == 0xd && subleaf == 1)) {
      result = {~0u, ~0u, ~0u, ~0u};
    }
    return result;
  };
  all.xcr0 = ~uint64_t{0};
  auto model = CpuModel::create_on(all, "host", 1, 1'000'000'000);
  ASSERT_TRUE(model);
  const CpuidResult one = model->cpuid(1, 0, {}), seven = model->cpuid(7, 0, {}), state = model->cpuid(0xd, 1, {});
  EXPECT_EQ(one.ecx & (1u << 3 | 1u << 5 | 1u << 15 | 1u << 27), 0u);                // MONITOR, VMX, PDCM, OSXSAVE
  EXPECT_EQ(seven.ebx & (1u << 2 | 1u << 4 | 1u << 11 | 1u << 14), 0u);              // SGX, HLE, RTM, MPX
  EXPECT_EQ(seven.ecx & (1u << 3 | 1u << 5 | 1u << 7 | 1u << 16 | 1u << 29), 0u);    // PKU, WAITPKG, CET, LA57, ENQCMD
  EXPECT_EQ(seven.edx & (1u << 5 | 1u << 10 | 1u << 20 | 7u << 22 | 1u << 25), 0u);  // UINTR, MD_CLEAR, CET, AMX, FP16
  EXPECT_EQ(state.eax, 7u);                                                          // no XSAVES
  EXPECT_EQ(model->cpuid(7, 1, {}).eax, 0u);
  EXPECT_EQ(model->xcr0_allowed(), 0xe7u);
  EXPECT_EQ(model->cpuid(0xa, 0, {}).eax, 0u);
  EXPECT_EQ(model->cpuid(5, 0, {}).ecx, 0u);
}

TEST(CpuModel, MissingFeaturesAreNamedWithTheBestModel) {
  const auto no_avx2 = host_without(7, 0, CpuidRegister::Ebx, 1u << 5);
  auto model = CpuModel::create_on(no_avx2, "x86-64-v3", 1, 1'000'000'000);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().message, "CPU model x86-64-v3: this computer's CPU lacks avx2; choose x86-64-v2");
  EXPECT_EQ(CpuModel::best_for(no_avx2), "x86-64-v2");
  EXPECT_EQ(CpuModel::best_for(full_host()), "x86-64-v4");
  EXPECT_EQ(CpuModel::best_for(host_without(1, 0, CpuidRegister::Ecx, 1u << 20)), "host");

  // AVX-512 in CPUID, but the host's system has not enabled its registers.
  CpuModel::Host no_state = full_host();
  no_state.xcr0 = 7;
  EXPECT_EQ(CpuModel::best_for(no_state), "x86-64-v3");
  auto host = CpuModel::create_on(no_state, "host", 1, 1'000'000'000);
  ASSERT_TRUE(host);
  EXPECT_FALSE(host->has(Feature::Avx512Vbmi));
  EXPECT_TRUE(host->has(Feature::Vaes));
  EXPECT_EQ(host->xcr0_allowed(), 7u);
}

TEST(CpuModel, BadArguments) {
  EXPECT_FALSE(CpuModel::create("x86-64-v5", 1, 1));
  EXPECT_FALSE(CpuModel::create("host", 0, 1));
  EXPECT_FALSE(CpuModel::create("host", 1025, 1));
}

TEST(CpuModel, TopologyAgreesWithApicIds) {
  for (const unsigned cpus : {1u, 2u, 3u, 4u, 5u, 8u, 16u, 255u, 256u, 300u}) {
    const CpuModel model = make("x86-64-v3", cpus);
    const unsigned bits = static_cast<unsigned>(std::bit_width(cpus - 1));
    for (const uint32_t id : {0u, cpus - 1}) {
      const CpuModel::Context context{.apic_id = id};
      for (const uint32_t leaf : {0xbu, 0x1fu}) {
        const CpuidResult thread = model.cpuid(leaf, 0, context), core = model.cpuid(leaf, 1, context),
                          end = model.cpuid(leaf, 2, context);
        EXPECT_EQ(thread.eax, 0u);
        EXPECT_EQ(thread.ebx, 1u);
        EXPECT_EQ(thread.ecx, 0x100u);
        EXPECT_EQ(core.eax, bits);
        EXPECT_EQ(core.ebx, cpus);
        EXPECT_EQ(core.ecx, 0x201u);
        EXPECT_EQ(id >> core.eax, 0u) << "all CPUs in package 0";
        EXPECT_EQ(end.ebx, 0u);
        EXPECT_EQ(end.ecx, 2u);
        for (const CpuidResult& level : {thread, core, end}) EXPECT_EQ(level.edx, id);
      }
      const CpuidResult one = model.cpuid(1, 0, context);
      EXPECT_EQ(one.ebx >> 24, id & 0xff);
      EXPECT_EQ((one.edx >> 28 & 1) != 0, cpus > 1);
      if (cpus > 1 && cpus < 255) {
        EXPECT_EQ(one.ebx >> 16 & 0xff, 1u << bits);
      }
    }
    const CpuidResult l1 = model.cpuid(4, 0, {}), l3 = model.cpuid(4, 3, {});
    EXPECT_EQ(l1.eax >> 14 & 0xfff, 0u);
    EXPECT_EQ(l3.eax >> 14 & 0xfff, (1u << bits) - 1);
    EXPECT_EQ(l3.eax >> 26, std::min((1u << bits) - 1, 63u));
    EXPECT_EQ(model.cpuid(4, 4, {}).eax, 0u);
  }
}

TEST(CpuModel, StateOfTheAskingCpuShows) {
  const CpuModel model = make("x86-64-v4");
  EXPECT_EQ(model.cpuid(1, 0, {}).ecx >> 27 & 1, 0u);
  EXPECT_EQ(model.cpuid(1, 0, {.cr4 = cr4::osxsave}).ecx >> 27 & 1, 1u);
  EXPECT_EQ(model.cpuid(1, 0, {}).edx >> 9 & 1, 1u);
  EXPECT_EQ(model.cpuid(1, 0, {.apic_enabled = false}).edx >> 9 & 1, 0u);
  EXPECT_EQ(model.cpuid(0xd, 0, {.xcr0 = 1}).ebx, 576u);
  EXPECT_EQ(model.cpuid(0xd, 0, {.xcr0 = 7}).ebx, 832u);
  EXPECT_EQ(model.cpuid(0xd, 0, {.xcr0 = 0xe7}).ebx, 2688u);
  EXPECT_EQ(model.cpuid(0xd, 0, {.xcr0 = 1}).ecx, 2688u);
  EXPECT_EQ(model.cpuid(0xd, 0, {.xcr0 = 1}).eax, 0xe7u);
  EXPECT_EQ(model.cpuid(0xd, 1, {.xcr0 = 7}).ebx, 832u);
  EXPECT_EQ(model.cpuid(0xd, 1, {.xcr0 = 0xe7}).ebx, 576u + 256 + 64 + 512 + 1024);
  EXPECT_EQ(model.cpuid(0xd, 9, {}).eax, 0u) << "PKRU is not offered";
  EXPECT_EQ(model.xsave_size(0xe7), 2688u);
  EXPECT_EQ(make("x86-64-v2").cpuid(0xd, 0, {}).eax, 0u) << "no XSAVE, no leaf 0xd";
}

TEST(CpuModel, IdentityAndRanges) {
  const CpuModel named = make("x86-64-v3"), host = make("host");
  EXPECT_EQ(named.cpuid(1, 0, {}).eax, 0x000806f8u);
  EXPECT_EQ(host.cpuid(1, 0, {}).eax, 0x000a0678u);
  EXPECT_EQ(named.cpuid(0, 0, {}).eax, 0x1fu);
  std::string brand;
  for (uint32_t leaf = 0x8000'0002; leaf <= 0x8000'0004; ++leaf) {
    const CpuidResult part = named.cpuid(leaf, 0, {});
    brand.append(reinterpret_cast<const char*>(&part), sizeof part);
  }
  EXPECT_STREQ(brand.c_str(), "Caisson Virtual CPU v3");
  EXPECT_EQ(named.cpuid(0x8000'0008, 0, {}).eax, 48u << 8 | named.physical_bits());
  EXPECT_EQ(host.physical_bits(), 46u);  // the host says 52
  CpuModel limited = host;
  limited.limit_physical_bits(42);
  EXPECT_EQ(limited.physical_bits(), 42u);
  EXPECT_EQ(limited.cpuid(0x8000'0008, 0, {}).eax, 48u << 8 | 42u);
  limited.limit_physical_bits(46);
  EXPECT_EQ(limited.physical_bits(), 42u);
  limited.limit_physical_bits(32);
  EXPECT_EQ(limited.physical_bits(), 40u);
  EXPECT_EQ(named.cpuid(0x8000'0000, 0, {}).eax, 0x8000'0008u);
  // SDM: leaves beyond the last answer as the last basic one.
  EXPECT_EQ(named.cpuid(0x8000'0021, 1, {.apic_id = 3}).edx, 3u);
  EXPECT_EQ(named.cpuid(0x4000'0020, 0, {}).eax, 0u);
  EXPECT_EQ(named.cpuid(7, 1, {}).ebx, 0u);
  EXPECT_EQ(named.cpuid(1, 5, {}).eax, named.cpuid(1, 0, {}).eax) << "leaf 1 has no sub-leaves";
}

TEST(CpuModel, ClocksAgree) {
  for (const uint64_t hz : {1'000'000'000u, 1'999'999'871u, 2'000'000'000u, 2'394'374'000u, 3'693'062'000u}) {
    auto model = CpuModel::create_on(full_host(), "x86-64-v3", 1, hz);
    ASSERT_TRUE(model);
    const CpuidResult crystal = model->cpuid(0x15, 0, {}), kvm = model->cpuid(0x4000'0010, 0, {});
    ASSERT_NE(crystal.eax, 0u);
    const double reported = 1.0 * crystal.ecx * crystal.ebx / crystal.eax;
    EXPECT_NEAR(reported / static_cast<double>(hz), 1.0, 1e-6);
    EXPECT_LE(uint64_t{crystal.ecx} / 1000 * crystal.ebx, 0xffff'ffffu) << "Linux multiplies in 32 bits";
    EXPECT_EQ(kvm.eax, hz / 1000);
    EXPECT_EQ(uint64_t{kvm.ebx} * 1000, crystal.ecx);
  }
  const CpuidResult signature = make("host").cpuid(0x4000'0000, 0, {});
  EXPECT_EQ(signature.ebx, 0x4b4d564bu);
  EXPECT_EQ(signature.edx, 0x4du);
  EXPECT_EQ(make("host").cpuid(0x4000'0001, 0, {}).eax, 1u << 1 | 1u << 3 | 1u << 24);
}

// This computer, whatever it is: "host" offers a native feature exactly where the CPU has it.
TEST(CpuModel, HostAgreesWithThisCpu) {
  const CpuModel::Host real = CpuModel::this_host();
  auto model = CpuModel::create("host", 2, 2'000'000'000);
  ASSERT_TRUE(model) << model.error().message;
  for (const CpuFeature& feature : cpu_features) {
    if (feature.provider == Provider::Engine) continue;
    const CpuidResult mine = model->cpuid(feature.leaf, feature.subleaf, {});
    const CpuidResult theirs = real.cpuid(feature.leaf, feature.subleaf);
    const auto bit = [&](const CpuidResult& result) {
      const uint32_t regs[] = {result.eax, result.ebx, result.ecx, result.edx};
      return (regs[static_cast<size_t>(feature.reg)] >> feature.bit & 1) != 0;
    };
    const bool usable = bit(theirs) && (real.xcr0 & feature.state) == feature.state;
    EXPECT_EQ(bit(mine), usable) << feature.name;
    if (feature.feature) {
      EXPECT_EQ(model->has(*feature.feature), usable) << feature.name;
    }
  }
  EXPECT_EQ(model->xcr0_allowed() & ~real.xcr0 & ~uint64_t{3}, 0u);
  for (const uint32_t i : {2u, 5u, 6u, 7u}) {
    if ((model->xcr0_allowed() >> i & 1) == 0) continue;
    EXPECT_EQ(model->cpuid(0xd, i, {}).eax, real.cpuid(0xd, i).eax);
    EXPECT_EQ(model->cpuid(0xd, i, {}).ebx, real.cpuid(0xd, i).ebx);
  }
  const std::string_view best = CpuModel::best_for_host();
  EXPECT_TRUE(CpuModel::create(best, 1, 1'000'000'000)) << best;
}

TEST(CpuModel, SideChannelsAreNotTheGuestsBusiness) {
  const CpuModel model = make("x86-64-v3");
  const uint64_t capabilities = model.arch_capabilities();
  for (const unsigned bit : {0u, 1u, 3u, 4u, 5u, 6u, 8u, 13u, 14u, 15u, 20u, 24u, 26u, 27u, 62u}) {
    EXPECT_TRUE(capabilities >> bit & 1) << bit;
  }
  for (const unsigned bit : {2u, 7u, 17u, 19u, 28u}) EXPECT_FALSE(capabilities >> bit & 1) << bit;
  EXPECT_TRUE(model.cpuid(7, 0, {}).edx >> 29 & 1);
}

}  // namespace
}  // namespace caisson::x86
