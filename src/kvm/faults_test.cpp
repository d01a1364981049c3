// What is wrong with /dev/kvm comes out as one line that names cause and remedy; nothing is left half made.
#include <fcntl.h>

#include "kvm/ioctl_faults.h"
#include "kvm/lists.h"
#include "kvm/probe.h"
#include "kvm/test_machine.h"

namespace caisson::kvm::test {
namespace {

class KvmFaults : public KvmTest {
 protected:
  void SetUp() override {
    KvmTest::SetUp();
    cpu.reset();
    engine.reset();
  }
  // Makes an engine and its first CPU.
  Result<std::unique_ptr<Vcpu>> make(const KvmOptions& options = {.kernel_apics = false}) {
    engine.reset();
    auto device = open_device();
    if (!device) return std::unexpected(device.error());
    auto made = KvmEngine::create({.memory = *memory, .bus = bus, .clock = clock, .model = *model}, std::move(*device),
                                  options);
    if (!made) return std::unexpected(made.error());
    engine = std::move(*made);
    return engine->create_vcpu(0, interrupts);
  }
  static void expect_message(const Error& error, std::string_view cause) {
    EXPECT_NE(error.message.find(cause), std::string::npos) << error.message;
    EXPECT_NE(error.message.find("/dev/kvm"), std::string::npos) << error.message;
    EXPECT_EQ(error.message.find('\n'), std::string::npos) << error.message;
  }
  static unsigned open_files() {
    unsigned count = 0;
    for (int fd = 0; fd < 256; ++fd) count += ::fcntl(fd, F_GETFD) >= 0;
    return count;
  }
};

TEST_F(KvmFaults, MissingCapabilityIsNamed) {
  const IoctlFaults faults{IoctlFaults::lacking(KVM_CAP_X86_MSR_FILTER)};
  const auto made = make();
  ASSERT_FALSE(made);
  expect_message(made.error(), "KVM_CAP_X86_MSR_FILTER");
  EXPECT_NE(made.error().message.find("use Linux 5.10 or newer, or --engine jit"), std::string::npos);
}

// Each step of making a machine fails in turn; what was made before it is gone afterwards.
TEST_F(KvmFaults, EveryStepThatFailsIsAnError) {
  const unsigned before = open_files();
  for (const unsigned long request :
       {static_cast<unsigned long>(KVM_GET_API_VERSION), static_cast<unsigned long>(KVM_CREATE_VM),
        static_cast<unsigned long>(KVM_SET_TSS_ADDR), get_supported_cpuid,
        static_cast<unsigned long>(KVM_X86_SET_MSR_FILTER), static_cast<unsigned long>(KVM_SET_USER_MEMORY_REGION),
        static_cast<unsigned long>(KVM_SET_CLOCK), static_cast<unsigned long>(KVM_CREATE_VCPU), set_cpuid2,
        static_cast<unsigned long>(KVM_SET_REGS)}) {
    const IoctlFaults faults{IoctlFaults::failing(request, ENOMEM)};
    const auto made = make();
    ASSERT_FALSE(made) << std::hex << request;
    expect_message(made.error(), request == KVM_GET_API_VERSION ? "version -1" : "Cannot allocate memory");
    engine.reset();
    EXPECT_EQ(open_files(), before) << std::hex << request;
  }
}

TEST_F(KvmFaults, WithoutLocalApicsInTheKernelOursAreUsed) {
  for (const auto& answer : {IoctlFaults::lacking(KVM_CAP_SPLIT_IRQCHIP), IoctlFaults::lacking(KVM_CAP_SIGNAL_MSI)}) {
    const IoctlFaults faults{answer};
    const auto made = make({.kernel_apics = true});
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ(engine->apics(), nullptr);
    EXPECT_NE(engine->apics_missing().find("lacks KVM_CAP_S"), std::string::npos) << engine->apics_missing();
  }
}

TEST_F(KvmFaults, RunThatFailsInTheMiddleTellsRegistersAndCode) {
  put_code(code,
           {0xb0, 0x41, 0x66, 0xba, 0x00, 0x01, 0xee, 0xeb, 0xfd});  // mov al,41h; mov dx,100h; 1: out dx,al; jmp 1b
  auto made = make();
  ASSERT_TRUE(made) << made.error().message;
  cpu = std::move(*made);
  const IoctlFaults faults{IoctlFaults::failing(KVM_RUN, EFAULT, 5)};
  ASSERT_TRUE(cpu->load(long_mode()));
  EXPECT_EQ(cpu->run(), ExitReason::InternalError);
  expect_message({cpu->error()}, "run the guest: Bad address; cs 0008");
  // Some kernels step over OUT at once, others when they are entered again.
  EXPECT_NE(cpu->error().find("eb fd 00"), std::string::npos) << cpu->error();
  EXPECT_NE(cpu->error().find("use --engine jit"), std::string::npos) << cpu->error();
  // Its state can still be taken.
  EXPECT_EQ(cpu->store().gpr[x86::Rax] & 0xff, 0x41u);
}

TEST_F(KvmFaults, ProbeThatCannotRunSaysWhy) {
  const auto device = open_device();
  ASSERT_TRUE(device);
  const IoctlFaults faults{IoctlFaults::failing(KVM_RUN, ENOEXEC)};
  const Verdict verdict = examine(*device);
  EXPECT_FALSE(verdict.use);
  EXPECT_NE(verdict.why.find("Exec format error"), std::string::npos) << verdict.why;
}

}  // namespace
}  // namespace caisson::kvm::test
