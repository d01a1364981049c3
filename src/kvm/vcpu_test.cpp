// Small payloads in ring 0, to an expected end.
#include <thread>

#include "kvm/probe.h"
#include "kvm/test_machine.h"

namespace caisson::kvm::test {
namespace {

using namespace x86;

class KvmRun : public KvmTest {
 protected:
  // Runs until the payload writes to the port that stops the CPU.
  CpuState run(const CpuState& from) {
    const auto loaded = cpu->load(from);
    EXPECT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(cpu->run(), ExitReason::Stopped) << cpu->error();
    return cpu->store();
  }
};

constexpr std::initializer_list<uint8_t> stop = {0x66, 0xba, 0x0f, 0x01, 0xee};  // mov dx,10fh; out dx,al

std::vector<uint8_t> then_stop(std::vector<uint8_t> bytes) {
  bytes.insert(bytes.end(), stop);
  bytes.insert(bytes.end(), {0xeb, 0xfe});  // jmp $
  return bytes;
}

TEST_F(KvmRun, CountsInALoop) {
  // mov ecx,1000; xor eax,eax; 1: add rax,rcx; dec ecx; jnz 1b
  put_code(code, then_stop({0xb9, 0xe8, 0x03, 0, 0, 0x31, 0xc0, 0x48, 0x01, 0xc8, 0xff, 0xc9, 0x75, 0xf9}));
  const CpuState end = run(long_mode());
  EXPECT_EQ(end.gpr[Rax], 500'500u);
  EXPECT_EQ(end.gpr[Rcx], 0u);
  // The OUT itself is done: RIP stands behind it.
  EXPECT_EQ(end.rip, code + 14 + stop.size());
}

TEST_F(KvmRun, PortsGoToTheBus) {
  // mov dx,100h; mov al,41h; out dx,al; in al,dx; mov bl,al; mov eax,12345678h; out dx,eax
  put_code(code,
           then_stop({0x66, 0xba, 0x00, 0x01, 0xb0, 0x41, 0xee, 0xec, 0x88, 0xc3, 0xb8, 0x78, 0x56, 0x34, 0x12, 0xef}));
  const CpuState end = run(long_mode());
  EXPECT_EQ(end.gpr[Rbx] & 0xff, 0x42u);
  EXPECT_EQ(port.written, (std::vector<uint64_t>{0x41, 0x1234'5678}));
}

TEST_F(KvmRun, StringsGoToPorts) {
  put_code(data, {1, 2, 3, 4, 5});
  // mov esi,data; mov ecx,5; mov dx,100h; rep outsb
  put_code(code, then_stop({0xbe, 0x00, 0x00, 0x06, 0x00, 0xb9, 5, 0, 0, 0, 0x66, 0xba, 0x00, 0x01, 0xf3, 0x6e}));
  const CpuState end = run(long_mode());
  EXPECT_EQ(port.written, (std::vector<uint64_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(end.gpr[Rsi], data + 5);
  EXPECT_EQ(end.gpr[Rcx], 0u);
}

TEST_F(KvmRun, DeviceMemoryGoesToTheBus) {
  // mov ebx,0d0000000h; mov dword [rbx],77h; mov eax,[rbx]
  put_code(code, then_stop({0xbb, 0x00, 0x00, 0x00, 0xd0, 0xc7, 0x03, 0x77, 0, 0, 0, 0x8b, 0x03}));
  const CpuState end = run(long_mode());
  EXPECT_EQ(port.written, (std::vector<uint64_t>{0x77}));
  EXPECT_EQ(end.gpr[Rax], 0x78u);
}

TEST_F(KvmRun, LocalApicIsOurs) {
  // mov ebx,0fee00000h; mov eax,[rbx+30h]; mov dword [rbx+80h],20h; mov rsi,rax
  put_code(code, then_stop({0xbb, 0x00, 0x00, 0xe0, 0xfe, 0x8b, 0x43, 0x30, 0xc7, 0x83, 0x80,
                            0,    0,    0,    0x20, 0,    0,    0,    0x48, 0x89, 0xc6}));
  const CpuState end = run(long_mode());
  EXPECT_EQ(end.gpr[Rsi], 0x5'0014u);
  EXPECT_EQ(interrupts.writes, (std::vector<std::pair<uint32_t, uint64_t>>{{0x80, 0x20}}));
}

TEST_F(KvmRun, MsrsOfTheLocalApicAndUnknownOnes) {
  // #GP: skip the two bytes of the instruction: pop rax; add qword [rsp],2; inc ebp; iretq
  put_code(handlers + 16 * Gp, {0x58, 0x48, 0x83, 0x04, 0x24, 0x02, 0xff, 0xc5, 0x48, 0xcf});
  // xor ebp,ebp; mov ecx,802h; rdmsr; mov esi,eax; wrmsr (#GP); mov ecx,12345h; rdmsr (#GP); mov ecx,17h; rdmsr;
  // mov edi,eax
  put_code(code, then_stop({0x31, 0xed, 0xb9, 0x02, 0x08, 0,    0,    0x0f, 0x32, 0x89, 0xc6, 0x0f, 0x30, 0xb9, 0x45,
                            0x23, 0x01, 0,    0x0f, 0x32, 0xb9, 0x17, 0,    0,    0,    0x0f, 0x32, 0x89, 0xc7}));
  const CpuState end = run(long_mode());
  EXPECT_EQ(end.gpr[Rsi], 7u);
  EXPECT_EQ(end.gpr[Rbp], 2u);
  EXPECT_EQ(end.gpr[Rdi], 0u);
}

TEST_F(KvmRun, TscWritesMoveTheOffset) {
  // mov ecx,3bh; xor edx,edx; mov eax,1000000; wrmsr
  put_code(code, then_stop({0xb9, 0x3b, 0, 0, 0, 0x31, 0xd2, 0xb8, 0x40, 0x42, 0x0f, 0x00, 0x0f, 0x30}));
  const CpuState end = run(long_mode());
  EXPECT_EQ(end.tsc_offset, 1'000'000u);
  EXPECT_EQ(end.msrs[static_cast<size_t>(MsrSlot::TscAdjust)], 1'000'000u);
}

TEST_F(KvmRun, InterruptEndsHalt) {
  // Handler: inc ebp; iretq
  put_code(handlers + 16 * 0x40, {0xff, 0xc5, 0x48, 0xcf});
  // xor ebp,ebp; sti; hlt
  put_code(code, then_stop({0x31, 0xed, 0xfb, 0xf4}));
  std::thread other{[&] {
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    interrupts.vector = 0x40;
    cpu->interrupts_changed();
  }};
  const CpuState end = run(long_mode());
  other.join();
  EXPECT_EQ(end.gpr[Rbp], 1u);
}

TEST_F(KvmRun, InterruptWaitsForTheFlag) {
  put_code(handlers + 16 * 0x40, {0x89, 0xdd, 0x48, 0xcf});  // mov ebp,ebx; iretq
  // mov ebx,5; sti; 1: test ebp,ebp; jz 1b
  put_code(code, then_stop({0xbb, 5, 0, 0, 0, 0xfb, 0x85, 0xed, 0x74, 0xfc}));
  interrupts.vector = 0x40;
  CpuState start = long_mode();
  start.gpr[Rbp] = start.gpr[Rbx] = 0;
  EXPECT_EQ(run(start).gpr[Rbp], 5u);
}

// A state has no place for an interrupt that was acknowledged but not delivered: it is delivered first.
TEST_F(KvmRun, StopDeliversWhatWasAcknowledged) {
  put_code(handlers + 16 * 0x40, {0xff, 0xc5, 0x48, 0xcf});  // inc ebp; iretq
  put_code(code, then_stop({0x85, 0xed, 0x74, 0xfc}));       // 1: test ebp,ebp; jz 1b
  interrupts.vector = 0x40;
  interrupts.acknowledged = [&] { cpu->stop(); };
  CpuState start = long_mode();
  start.gpr[Rbp] = 0;
  start.rflags |= rflags::interrupt;
  const CpuState stopped = run(start);
  EXPECT_EQ(get<uint64_t>(stack - 40) & ~uint64_t{7}, code & ~uint64_t{7}) << "the return address";
  // On a fresh CPU state it goes on to the end.
  EXPECT_EQ(run(stopped).gpr[Rbp], 1u);
}

TEST_F(KvmRun, NmiIsDelivered) {
  put_code(handlers + 16 * Nmi, {0xff, 0xc5, 0x48, 0xcf});
  put_code(code, then_stop({0x90, 0x90}));
  CpuState start = long_mode();
  start.gpr[Rbp] = 0;
  interrupts.events.push_back({CpuInterrupts::Event::Nmi});
  EXPECT_EQ(run(start).gpr[Rbp], 1u);
}

TEST_F(KvmRun, StartUpInterruptStartsAtItsPage) {
  // Real mode: mov dx,10fh; mov al,33h; out dx,al; jmp $
  put_code(0x7000, {0xba, 0x0f, 0x01, 0xb0, 0x33, 0xee, 0xeb, 0xfe});
  CpuState start = power_on_state(*model);
  start.activity = Activity::WaitForSipi;
  interrupts.events.push_back({CpuInterrupts::Event::Sipi, 7});
  const CpuState end = run(start);
  EXPECT_EQ(end.segments[Cs].base, 0x7000u);
  EXPECT_EQ(end.gpr[Rax] & 0xff, 0x33u);
}

TEST_F(KvmRun, TripleFaultEnds) {
  CpuState start = long_mode();
  start.idtr.limit = 0;
  put_code(code, {0x0f, 0x0b});  // ud2
  ASSERT_TRUE(cpu->load(start));
  EXPECT_EQ(cpu->run(), ExitReason::TripleFault);
}

TEST_F(KvmRun, StopsFromAnotherThreadAndGoesOn) {
  put_code(code, {0x48, 0xff, 0xc1, 0xeb, 0xfb});  // 1: inc rcx; jmp 1b
  CpuState start = long_mode();
  start.gpr[Rcx] = 0;
  ASSERT_TRUE(cpu->load(start));
  uint64_t last = 0;
  for (int i = 0; i < 3; ++i) {
    std::thread other{[&] {
      std::this_thread::sleep_for(std::chrono::milliseconds{20});
      cpu->stop();
    }};
    EXPECT_EQ(cpu->run(), ExitReason::Stopped) << cpu->error();
    other.join();
    const uint64_t count = cpu->store().gpr[Rcx];
    EXPECT_GT(count, last);
    last = count;
  }
}

TEST_F(KvmRun, CpuidIsTheModels) {
  // mov eax,80000002h; cpuid
  put_code(code, then_stop({0xb8, 0x02, 0, 0, 0x80, 0x0f, 0xa2, 0x89, 0xc6}));
  const CpuState end = run(long_mode());
  EXPECT_EQ(end.gpr[Rsi], model->cpuid(0x8000'0002, 0, {}).eax);
}

TEST_F(KvmRun, RingZeroHasASpeed) {
  const auto device = open_device();
  ASSERT_TRUE(device);
  const auto speed = ring0_speed(*device);
  ASSERT_TRUE(speed) << speed.error().message;
  EXPECT_GT(*speed, 1000u);
  EXPECT_EQ(examine(*device).use, examine(*device).why.find("no hardware") == std::string::npos);
}

}  // namespace
}  // namespace caisson::kvm::test
