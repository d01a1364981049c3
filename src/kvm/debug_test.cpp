// Stops for a debugger.
#include "kvm/test_machine.h"

namespace caisson::kvm::test {
namespace {

using namespace x86;

class KvmDebug : public KvmTest {
 protected:
  void SetUp() override {
    KvmTest::SetUp();
    if (IsSkipped()) return;
    // inc rcx; inc rcx; inc rcx; mov dx,10fh; out dx,al; jmp $
    put_code(code, {0x48, 0xff, 0xc1, 0x48, 0xff, 0xc1, 0x48, 0xff, 0xc1, 0x66, 0xba, 0x0f, 0x01, 0xee, 0xeb, 0xfe});
    CpuState state = long_mode();
    state.gpr[Rcx] = 0;
    ASSERT_TRUE(cpu->load(state));
  }
  void expect_at(uint64_t rip, uint64_t count) {
    const CpuState state = cpu->store();
    EXPECT_EQ(state.rip, rip);
    EXPECT_EQ(state.gpr[Rcx], count);
    EXPECT_EQ(state.rflags & rflags::tf, 0u);
  }
};

TEST_F(KvmDebug, SingleSteps) {
  const auto set = cpu->set_debug_stops({.single_step = true});
  ASSERT_TRUE(set) << set.error().message;
  for (uint64_t i = 1; i <= 3; ++i) {
    ASSERT_EQ(cpu->run(), ExitReason::Debug) << cpu->error();
    expect_at(code + 3 * i, i);
  }
  ASSERT_TRUE(cpu->set_debug_stops({}));
  EXPECT_EQ(cpu->run(), ExitReason::Stopped) << cpu->error();
}

TEST_F(KvmDebug, BreakpointsStopBeforeTheirInstruction) {
  const auto set = cpu->set_debug_stops({.breakpoints = {code + 3, code + 6}});
  ASSERT_TRUE(set) << set.error().message;
  ASSERT_EQ(cpu->run(), ExitReason::Debug) << cpu->error();
  expect_at(code + 3, 1);
  ASSERT_TRUE(cpu->set_debug_stops({.breakpoints = {code + 6}}));
  ASSERT_EQ(cpu->run(), ExitReason::Debug) << cpu->error();
  expect_at(code + 6, 2);
  ASSERT_TRUE(cpu->set_debug_stops({}));
  EXPECT_EQ(cpu->run(), ExitReason::Stopped) << cpu->error();
  EXPECT_EQ(cpu->store().gpr[Rcx], 3u);
}

TEST_F(KvmDebug, FiveBreakpointsAreRefused) {
  const auto set = cpu->set_debug_stops({.breakpoints = {1, 2, 3, 4, 5}});
  ASSERT_FALSE(set);
  EXPECT_NE(set.error().message.find("5 breakpoints"), std::string::npos) << set.error().message;
}

}  // namespace
}  // namespace caisson::kvm::test
