// Which engine a machine gets where something is wrong with /dev/kvm, and what is said about it.
#include "machine/engine_choice.h"

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "kvm/device.h"
#include "kvm/ioctl_faults.h"

namespace caisson::machine {
namespace {

using kvm::test::IoctlFaults;

class EngineChoice : public testing::Test {
 protected:
  void SetUp() override {
    memory_ = *GuestMemory::create(uint64_t{4} << 20);
    model_ = std::make_unique<x86::CpuModel>(*x86::CpuModel::create("x86-64-v2", 1, clock_.tsc_hz()));
  }
  Result<ChosenEngine> choose(control::EngineChoice what, Fd device) {
    control::VmConfig config;
    config.engine = what;
    config.kvm_missing = "/dev/kvm is not there";
    EngineProbe probe{config, device};
    return choose_engine(config, {*memory_, bus_, clock_, *model_}, std::move(device), probe, -1);
  }
  void expect_fallback(std::string_view cause) {
    auto device = kvm::open_device();
    if (!device) GTEST_SKIP() << device.error().message;
    const auto chosen = choose(control::EngineChoice::Auto, std::move(*device));
    ASSERT_TRUE(chosen) << chosen.error().message;
    EXPECT_EQ(chosen->name, "jit");
    EXPECT_NE(chosen->reason.find(cause), std::string::npos) << chosen->reason;
    EXPECT_EQ(chosen->reason.find('\n'), std::string::npos) << chosen->reason;
  }
  void expect_error(std::string_view cause) {
    auto device = kvm::open_device();
    if (!device) GTEST_SKIP() << device.error().message;
    const auto chosen = choose(control::EngineChoice::Kvm, std::move(*device));
    ASSERT_FALSE(chosen);
    EXPECT_NE(chosen.error().message.find("--engine kvm: "), std::string::npos) << chosen.error().message;
    EXPECT_NE(chosen.error().message.find(cause), std::string::npos) << chosen.error().message;
    EXPECT_EQ(chosen.error().message.find('\n'), std::string::npos) << chosen.error().message;
  }

  FakeClock clock_;
  Bus bus_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
};

TEST_F(EngineChoice, NoDeviceLeadsToJitAndSaysSo) {
  const auto chosen = choose(control::EngineChoice::Auto, Fd{});
  ASSERT_TRUE(chosen) << chosen.error().message;
  EXPECT_EQ(chosen->name, "jit");
  EXPECT_EQ(chosen->reason, "/dev/kvm is not there");
}

TEST_F(EngineChoice, MissingCapability) {
  const IoctlFaults faults{IoctlFaults::lacking(KVM_CAP_IMMEDIATE_EXIT)};
  expect_fallback("lacks KVM_CAP_IMMEDIATE_EXIT");
  expect_error("lacks KVM_CAP_IMMEDIATE_EXIT; use Linux 5.10 or newer, or --engine jit");
}

TEST_F(EngineChoice, OtherVersionOfTheInterface) {
  const IoctlFaults faults{[](unsigned long request, unsigned long) -> std::optional<int> {
    return request == KVM_GET_API_VERSION ? std::optional{11} : std::nullopt;
  }};
  expect_fallback("version 11");
  expect_error("version 11 of the interface instead of 12; use --engine jit");
}

TEST_F(EngineChoice, NoMachineCanBeMade) {
  const IoctlFaults faults{IoctlFaults::failing(KVM_CREATE_VM, EBUSY)};
  expect_fallback("Device or resource busy");
  expect_error("Device or resource busy");
}

TEST_F(EngineChoice, LoopThatDoesNotRun) {
  const IoctlFaults faults{IoctlFaults::failing(KVM_RUN, ENOEXEC)};
  expect_fallback("run a plain loop in ring 0");
}

}  // namespace
}  // namespace caisson::machine
