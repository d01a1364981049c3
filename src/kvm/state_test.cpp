// What is loaded into a vCPU comes back.
#include <cstring>
#include <random>

#include "kvm/test_machine.h"

namespace caisson::kvm::test {
namespace {

using namespace x86;

uint64_t& slot(CpuState& state, MsrSlot which) { return state.msrs[static_cast<size_t>(which)]; }

void expect_equal(const SegmentState& got, const SegmentState& want, const char* name) {
  SCOPED_TRACE(name);
  EXPECT_EQ(got.base, want.base);
  EXPECT_EQ(got.limit, want.limit);
  EXPECT_EQ(got.attributes, want.attributes);
  EXPECT_EQ(got.selector, want.selector);
}

void expect_equal(const CpuState& got, const CpuState& want) {
  EXPECT_EQ(got.gpr, want.gpr);
  EXPECT_EQ(got.rip, want.rip);
  EXPECT_EQ(got.rflags, want.rflags);
  constexpr const char* names[] = {"es", "cs", "ss", "ds", "fs", "gs"};
  for (unsigned i = 0; i < 6; ++i) expect_equal(got.segments[i], want.segments[i], names[i]);
  expect_equal(got.tr, want.tr, "tr");
  // Of an unusable segment only that it is unusable means anything.
  EXPECT_EQ(got.ldtr.attributes >> 16, want.ldtr.attributes >> 16);
  EXPECT_EQ(got.gdtr.base, want.gdtr.base);
  EXPECT_EQ(got.gdtr.limit, want.gdtr.limit);
  EXPECT_EQ(got.idtr.base, want.idtr.base);
  EXPECT_EQ(got.idtr.limit, want.idtr.limit);
  EXPECT_EQ(got.cr0, want.cr0);
  EXPECT_EQ(got.cr2, want.cr2);
  EXPECT_EQ(got.cr3, want.cr3);
  EXPECT_EQ(got.cr4, want.cr4);
  EXPECT_EQ(got.efer, want.efer);
  EXPECT_EQ(got.xcr0, want.xcr0);
  EXPECT_EQ(got.dr, want.dr);
  EXPECT_EQ(got.activity, want.activity);
  // AMD's CPUs do not say which instruction made the shadow.
  EXPECT_EQ(got.interrupt_shadow != 0, want.interrupt_shadow != 0);
  EXPECT_EQ(got.nmi_blocked, want.nmi_blocked);
  EXPECT_EQ(got.tsc_offset, want.tsc_offset);
  for (size_t i = 0; i < want.msrs.size(); ++i) EXPECT_EQ(got.msrs[i], want.msrs[i]) << "MSR slot " << i;
}

class KvmState : public KvmTest {
 protected:
  uint64_t number() { return random_(); }
  uint64_t canonical() { return static_cast<uint64_t>(static_cast<int64_t>(number() << 16) >> 16); }
  template <size_t N>
  uint64_t one_of(const uint64_t (&values)[N]) {
    return values[number() % N];
  }

  // A state that a 64-bit kernel could be in.
  CpuState random_state() {
    CpuState state = long_mode();
    for (uint64_t& reg : state.gpr) reg = number();
    state.rip = canonical();
    state.rflags = rflags::fixed | (number() & (rflags::status | rflags::df | rflags::interrupt | rflags::ac));
    state.segments[Fs].base = canonical();
    state.segments[Gs].base = canonical();
    state.segments[Ds].selector = static_cast<uint16_t>(number());
    state.tr.base = canonical();
    state.gdtr = {.base = canonical(), .limit = static_cast<uint16_t>(number())};
    state.idtr = {.base = canonical(), .limit = static_cast<uint16_t>(number())};
    state.cr2 = number();
    state.cr3 = number() & 0x7f'ffff'f000;
    state.cr4 |= number() & (cr4::tsd | cr4::de | cr4::pge | cr4::osxmmexcpt);
    state.efer |= number() & efer::sce;
    for (unsigned i = 0; i < 4; ++i) state.dr[i] = canonical();
    state.dr[6] = 0xffff'0ff0 | (number() & 0xe00f);
    state.dr[7] = 0x400 | (number() & 0xff);
    state.interrupt_shadow = static_cast<uint8_t>(number() % 3);
    state.nmi_blocked = (number() & 1) != 0;
    state.activity = (number() & 1) != 0 ? Activity::Running : Activity::Halted;
    state.tsc_offset = number() >> 20;
    slot(state, MsrSlot::SysenterCs) = number() & 0xffff;
    for (const MsrSlot which :
         {MsrSlot::SysenterEsp, MsrSlot::SysenterEip, MsrSlot::Lstar, MsrSlot::Cstar, MsrSlot::KernelGsBase}) {
      slot(state, which) = canonical();
    }
    // On AMD's processors these have 32 bits, and nobody writes more.
    slot(state, MsrSlot::SysenterEsp) &= 0x7fff'ffff;
    slot(state, MsrSlot::SysenterEip) &= 0x7fff'ffff;
    slot(state, MsrSlot::Star) = number();
    slot(state, MsrSlot::Sfmask) = number() & 0xffff'ffff;
    slot(state, MsrSlot::TscAux) = number() & 0xffff'ffff;
    slot(state, MsrSlot::MiscEnable) = number() & 1;
    slot(state, MsrSlot::FeatureControl) = number() & 1;
    slot(state, MsrSlot::Pat) = one_of({0x0007'0406'0007'0406, 0x0407'0506'0007'0106, 0x0606'0606'0606'0606});
    slot(state, MsrSlot::MtrrDefType) = one_of({0, 0x800, 0xc06});
    state.msrs[static_cast<size_t>(MsrSlot::MtrrPhys0)] = 0x8000'0000;
    state.msrs[static_cast<size_t>(MsrSlot::MtrrPhys0) + 1] = 0xff'8000'0800;
    state.msrs[static_cast<size_t>(MsrSlot::MtrrFixed0)] = 0x0606'0606'0606'0606;
    // x87 and SSE registers, and that they are in use.
    for (size_t i = 32; i < 416; ++i) {
      const bool reserved = i < 160 && i % 16 >= 10;
      state.xsave.data[i] = reserved ? 0 : static_cast<uint8_t>(number());
    }
    state.xsave.data[512] = 3;
    return state;
  }

 private:
  std::mt19937_64 random_{20240601};
};

TEST_F(KvmState, WhatIsLoadedComesBack) {
  for (int i = 0; i < 300; ++i) {
    const CpuState state = random_state();
    const auto loaded = cpu->load(state);
    ASSERT_TRUE(loaded) << loaded.error().message;
    const CpuState again = cpu->store();
    expect_equal(again, state);
    ASSERT_GE(again.xsave.data.size(), 576u);
    EXPECT_EQ(std::memcmp(again.xsave.data.data() + 32, state.xsave.data.data() + 32, 416 - 32), 0);
    EXPECT_EQ(again.xsave.data[512] & 3, 3);
    if (HasFailure()) FAIL() << "in round " << i;
  }
}

TEST_F(KvmState, PowerOnStateComesBack) { expect_equal(cpu->store(), power_on_state(*model)); }

TEST_F(KvmState, OtherCpusWaitForTheirStart) {
  FakeInterrupts second;
  auto other = engine->create_vcpu(1, second);
  ASSERT_TRUE(other) << other.error().message;
  EXPECT_EQ((*other)->store().activity, Activity::WaitForSipi);
}

TEST_F(KvmState, TooMuchXsaveStateIsRefused) {
  CpuState state = cpu->store();
  state.xsave.data.resize(4097);
  const auto loaded = cpu->load(state);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("4097 bytes"), std::string::npos) << loaded.error().message;
}

TEST_F(KvmState, InitKeepsWhatItShall) {
  const CpuState before = random_state();
  const CpuState after = init_state(before, *model);
  EXPECT_EQ(after.rip, 0xfff0u);
  EXPECT_EQ(after.cr0, 0x10u);
  EXPECT_EQ(after.cr4, 0u);
  EXPECT_EQ(after.msrs, before.msrs);
  EXPECT_EQ(after.xsave.data, before.xsave.data);
}

}  // namespace
}  // namespace caisson::kvm::test
