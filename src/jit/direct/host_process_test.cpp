// What a guest's program can do to the process it runs in, and through it: nothing.
#include "jit/direct/host_process.h"

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace caisson::jit {
namespace {

using Stop = HostProcess::Stop;

class HostProcessOf : public testing::Test {
 protected:
  static constexpr uint64_t code = 0x40'0000, data = 0x7000'0000'0000, size = 16 * 4096;

  void SetUp() override {
    if (!HostProcess::possible()) GTEST_SKIP() << "this host cannot execute user code directly";
    memory_ = Fd{memfd_create("test", MFD_CLOEXEC)};
    ASSERT_TRUE(memory_.valid());
    ASSERT_EQ(ftruncate(memory_.get(), size), 0);
    void* got = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
    ASSERT_NE(got, MAP_FAILED);
    bytes_ = static_cast<uint8_t*>(got);
    process_ = HostProcess::create(memory_.get());
    ASSERT_NE(process_, nullptr);
    process_->map(code, 0, 4096, {.write = false, .execute = true});
    process_->map(data, 4096, 4096, {.write = true, .execute = false});
    ASSERT_TRUE(process_->flush(HostProcess::Registers::Spoil));
  }
  void TearDown() override {
    if (bytes_ != nullptr) munmap(bytes_, size);
  }

  // Runs these bytes from the beginning of the code page.
  HostProcess::Stopped run(const std::vector<uint8_t>& what) {
    std::copy(what.begin(), what.end(), bytes_);
    registers_.cs = 0x33;
    registers_.ss = 0x2b;
    registers_.rip = code;
    EXPECT_TRUE(process_->load(registers_));
    const auto stopped = process_->run();
    if (stopped.why != Stop::Gone) {
      EXPECT_TRUE(process_->store(registers_));
    }
    return stopped;
  }

  Fd memory_;
  uint8_t* bytes_ = nullptr;
  std::unique_ptr<HostProcess> process_;
  user_regs_struct registers_{};
};

TEST_F(HostProcessOf, SystemCallsStopItAndDoNothing) {
  // Each would be seen: the page goes away, the process ends, this one gets a signal.
  for (const long number : {SYS_munmap, SYS_exit_group, SYS_kill}) {
    registers_.rax = static_cast<uint64_t>(number);
    registers_.rdi = number == SYS_munmap ? data : number == SYS_kill ? static_cast<uint64_t>(getppid()) : 0;
    registers_.rsi = number == SYS_munmap ? 4096 : 9;
    EXPECT_EQ(run({0x0f, 0x05}).why, Stop::SystemCall);
    EXPECT_EQ(registers_.rip, code + 2);
    EXPECT_EQ(registers_.orig_rax, static_cast<uint64_t>(number));
  }
  // mov rbx, data; mov byte [rbx], 7; syscall
  EXPECT_EQ(run({0x48, 0xbb, 0, 0, 0, 0, 0, 0x70, 0, 0, 0xc6, 0x03, 7, 0x0f, 0x05}).why, Stop::SystemCall);
  EXPECT_EQ(bytes_[4096], 7);
}

TEST_F(HostProcessOf, SystemCallsOf32BitsStopItToo) {
  // int 80h with SYS_exit
  registers_.rax = 1;
  const Stop why = run({0xcd, 0x80}).why;
  // A kernel without 32-bit programs raises #GP.
  EXPECT_TRUE(why == Stop::SystemCall || why == Stop::Fault);
  EXPECT_EQ(run({0x0f, 0x05}).why, Stop::SystemCall);
}

TEST_F(HostProcessOf, ItsOwnCodeDoesNothingForGuests) {
  // jmp to the SYSCALL of the process's own code: there is one where the list is worked off.
  registers_.rbx = data;  // a list made by the guest: munmap of its own code
  const uint64_t forged[5] = {SYS_munmap, code, 4096, 0, 0};
  std::copy_n(reinterpret_cast<const uint8_t*>(forged), sizeof forged, bytes_ + 4096);
  registers_.r12 = 1;
  registers_.rax = process_->own_page();
  EXPECT_EQ(run({0xff, 0xe0}).why, Stop::SystemCall);
  EXPECT_GE(registers_.rip, process_->own_page());
  EXPECT_LT(registers_.rip, process_->own_page() + 4096);
  EXPECT_EQ(run({0x0f, 0x05}).why, Stop::SystemCall);  // the code is there
}

TEST_F(HostProcessOf, NothingOfTheMachineMonitorIsThere) {
  static int secret = 42;
  int local = 43;
  std::vector<int> heap{44};
  for (const void* address : {static_cast<const void*>(&secret), static_cast<const void*>(&local),
                              static_cast<const void*>(heap.data()), static_cast<const void*>(bytes_)}) {
    registers_.rbx = reinterpret_cast<uint64_t>(address);
    const auto stopped = run({0x8a, 0x03});  // mov al, [rbx]
    EXPECT_EQ(stopped.why, Stop::Fault);
    EXPECT_TRUE(stopped.has_address);
    EXPECT_EQ(stopped.address, reinterpret_cast<uint64_t>(address));
  }
}

TEST_F(HostProcessOf, RightsAreThoseThatWereGiven) {
  registers_.rbx = code;
  EXPECT_EQ(run({0x88, 0x03}).address, code);  // mov [rbx], al
  registers_.rbx = data;
  EXPECT_EQ(run({0xff, 0xe3}).address, data);  // jmp rbx
  process_->protect(data, 4096, {.write = false, .execute = false});
  ASSERT_TRUE(process_->flush(HostProcess::Registers::Keep));
  EXPECT_EQ(run({0x88, 0x03}).address, data);
  EXPECT_EQ(run({0x8a, 0x03, 0x0f, 0x05}).why, Stop::SystemCall);
  process_->unmap(data, 4096);
  ASSERT_TRUE(process_->flush(HostProcess::Registers::Keep));
  EXPECT_EQ(run({0x8a, 0x03, 0x0f, 0x05}).address, data);
  process_->unmap_all();
  ASSERT_TRUE(process_->flush(HostProcess::Registers::Spoil));
  EXPECT_EQ(run({0x90}).address, code);
}

TEST_F(HostProcessOf, IdentificationAndTimeFault) {
  EXPECT_EQ(run({0x0f, 0xa2}).why, Stop::Fault);        // cpuid
  EXPECT_EQ(run({0x0f, 0x31}).why, Stop::Fault);        // rdtsc
  EXPECT_EQ(run({0x0f, 0x01, 0xf9}).why, Stop::Fault);  // rdtscp
  EXPECT_EQ(run({0xf4}).why, Stop::Fault);              // hlt
  EXPECT_EQ(run({0xfa}).why, Stop::Fault);              // cli
  EXPECT_EQ(run({0x0f, 0x0b}).why, Stop::Exception);    // ud2
  EXPECT_EQ(run({0xcc}).why, Stop::Trap);               // int3
}

TEST_F(HostProcessOf, ManyMappingsAtOnce) {
  // More than fit into one list.
  for (uint64_t i = 0; i < 500; ++i) {
    process_->map(data + 2 * i * 4096, 4096 * (1 + i % 15), 4096, {.write = true, .execute = false});
  }
  ASSERT_TRUE(process_->flush(HostProcess::Registers::Keep));
  for (const uint64_t i : {0, 1, 250, 499}) {
    registers_.rbx = data + 2 * i * 4096;
    EXPECT_EQ(run({0xc6, 0x03, 9, 0x0f, 0x05}).why, Stop::SystemCall);
    EXPECT_EQ(bytes_[4096 * (1 + i % 15)], 9);
    bytes_[4096 * (1 + i % 15)] = 0;
  }
}

TEST_F(HostProcessOf, WakesFromALoop) {
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    process_->wake();
  });
  EXPECT_EQ(run({0xeb, 0xfe}).why, Stop::Woken);  // jmp $
  other.join();
  // What comes early is not lost.
  process_->wake();
  EXPECT_EQ(run({0xeb, 0xfe}).why, Stop::Woken);
  // Others' signals are nobody's business, but the last.
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    // Its only child here.
    kill(process_->id(), SIGTERM);
    kill(process_->id(), SIGSTOP);
    kill(process_->id(), SIGKILL);
  });
  EXPECT_EQ(run({0xeb, 0xfe}).why, Stop::Gone);
  killer.join();
}

TEST_F(HostProcessOf, VectorRegistersGoInAndOut) {
  std::vector<uint8_t> in(2696), out(2696);
  for (size_t i = 160; i < 416; ++i) in[i] = static_cast<uint8_t>(i);  // XMM0-15
  in[24] = 0x80;
  in[25] = 0x1f;
  in[0] = 0x7f;
  in[1] = 0x03;
  in[512] = 2;
  ASSERT_TRUE(process_->load_fpu(in));
  // paddb xmm0, xmm0; syscall
  EXPECT_EQ(run({0x66, 0x0f, 0xfc, 0xc0, 0x0f, 0x05}).why, Stop::SystemCall);
  ASSERT_TRUE(process_->store_fpu(out));
  for (size_t i = 160; i < 176; ++i) EXPECT_EQ(out[i], static_cast<uint8_t>(2 * i));
  EXPECT_TRUE(std::equal(in.begin() + 176, in.begin() + 416, out.begin() + 176));
}

}  // namespace
}  // namespace caisson::jit
