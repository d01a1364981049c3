// User code that runs directly does what it does on the translator, and what it may see is the guest's.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "jit/direct/direct.h"
#include "jit/direct/host_process.h"
#include "jit/fpu.h"
#include "jit/translate/test_bench.h"
#include "jit/vcpu.h"

namespace caisson::jit {
namespace {

using namespace x86;
using test::NoInterrupts;

// 64-bit user code with the selectors that Linux has, pages of 4 KiB, no IDT: the first exception ends the run, and the
// registers are the user's.
class UserMachine {
 public:
  static constexpr uint64_t memory_size = uint64_t{16} << 20;
  static constexpr Gpa tables = 0x1000;
  // Of linear addresses from `base` on, the page number N is that of guest-physical address first + N * 4096.
  static constexpr uint64_t base = 0x5555'5540'0000, pages = 512;
  static constexpr Gpa first = 0x20'0000;
  static constexpr uint64_t code = base, data = base + 0x10'0000, stack = base + 0x18'0000;
  static constexpr uint64_t present = 1, write = 2, user = 4, accessed = 0x20, dirty = 0x40, nx = uint64_t{1} << 63;

  explicit UserMachine(bool direct) {
    JitOptions options;
    options.profile = true;
    options.off = off::seldom | off::patience | (direct ? 0 : off::direct);
    memory_ = std::move(*GuestMemory::create(memory_size));
    model_ = std::make_unique<CpuModel>(std::move(*CpuModel::create("host", 1, clock_.tsc_hz())));
    engine_ = std::move(*JitEngine::create({*memory_, bus_, clock_, *model_}, options));
    cpu_ = std::move(*engine_->create_vcpu(0, interrupts_));
    start_ = cpu_->store();
    const auto index = [](uint64_t linear, unsigned level) { return (linear >> (3 + 9 * level) & 511) * 8; };
    put(tables + index(base, 4), (tables + 0x1000) | present | write | user);
    put(tables + 0x1000 + index(base, 3), (tables + 0x2000) | present | write | user);
    put(tables + 0x2000 + index(base, 2), (tables + 0x3000) | present | write | user);
    for (uint64_t i = 0; i < pages; ++i) set_page(base + i * page_size, first + i * page_size, present | write | user);
  }

  void put(Gpa gpa, uint64_t value) { ASSERT_TRUE(memory_->write_object(gpa, value)); }
  void set_page(uint64_t linear, Gpa gpa, uint64_t rights) { put(entry(linear), gpa | rights); }
  [[nodiscard]] static Gpa entry(uint64_t linear) { return tables + 0x3000 + (linear >> 12 & 511) * 8; }
  [[nodiscard]] uint64_t rights(uint64_t linear) const {
    uint64_t value = 0;
    EXPECT_TRUE(memory_->read_object(entry(linear), value));
    return value & (0xfff | nx);
  }
  [[nodiscard]] uint8_t* at(uint64_t linear) { return memory_->base() + first + (linear - base); }

  // Until an exception.
  CpuState run(const std::vector<uint8_t>& bytes, uint64_t where = code) {
    prepare(bytes, where);
    EXPECT_EQ(cpu_->run(), ExitReason::TripleFault) << cpu_->error();
    return cpu_->store();
  }
  void prepare(const std::vector<uint8_t>& bytes, uint64_t where = code) {
    ASSERT_TRUE(memory_->write(first + (where - base), bytes));
    CpuState state = start_;
    state.gpr = gpr;
    state.gpr[Rsp] = stack;
    state.rip = where;
    state.rflags = flags | rflags::fixed | rflags::interrupt;
    state.cr0 = 0x8005'0033;
    state.cr3 = tables;
    state.cr4 = cr4::pae | cr4::pge | cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave | cr4::fsgsbase;
    state.efer = efer::lme | efer::lma | efer::nxe | efer::sce;
    state.xcr0 = model_->xcr0_allowed();
    for (auto& segment : state.segments) segment = {.base = 0, .limit = 0, .attributes = 1u << 16, .selector = 0};
    state.segments[Cs] = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xa0fb, .selector = 0x33};
    state.segments[Ss] = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xc0f3, .selector = 0x2b};
    state.segments[Fs].base = data + 0x800;
    state.idtr = {.base = 0, .limit = 0};
    if (!xsave.empty()) state.xsave.data = xsave;
    ASSERT_TRUE(cpu_->load(state).has_value());
  }

  [[nodiscard]] uint64_t count(std::string_view event) const {
    for (const auto& row : engine_->profile().rows) {
      if (row.name == event) return row.value;
    }
    return 0;
  }
  [[nodiscard]] uint64_t spaces() const { return count("address spaces executed directly"); }
  [[nodiscard]] Vcpu& cpu() { return *cpu_; }
  [[nodiscard]] JitEngine& engine() { return *engine_; }
  [[nodiscard]] GuestMemory& memory() { return *memory_; }
  [[nodiscard]] const CpuModel& model() const { return *model_; }

  std::array<uint64_t, 16> gpr{};
  uint64_t flags = 0;
  std::vector<uint8_t> xsave;

 private:
  Bus bus_;
  FakeClock clock_;
  NoInterrupts interrupts_;
  std::unique_ptr<CpuModel> model_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<JitEngine> engine_;
  std::unique_ptr<Vcpu> cpu_;
  CpuState start_;
};

class Direct_ : public testing::Test {
 protected:
  void SetUp() override {
    if (!HostProcess::possible()) GTEST_SKIP() << "this host cannot execute user code directly";
    for (auto* machine : {&direct, &translated}) {
      for (unsigned i = 0; i < 16; ++i) machine->gpr[i] = uint64_t{0x0123'4567'89ab} * i + 77;
      machine->gpr[Rbx] = UserMachine::data;
    }
  }
  // The same on both; returns what it is.
  CpuState both(const std::vector<uint8_t>& bytes) {
    const uint64_t before = direct.spaces();
    const CpuState one = direct.run(bytes), other = translated.run(bytes);
    EXPECT_EQ(one.gpr, other.gpr);
    EXPECT_EQ(one.rip, other.rip);
    EXPECT_EQ(one.rflags, other.rflags);
    EXPECT_EQ(one.cr2, other.cr2);
    EXPECT_EQ(one.segments[Fs].base, other.segments[Fs].base);
    EXPECT_EQ(
        std::memcmp(direct.at(UserMachine::base), translated.at(UserMachine::base), UserMachine::pages * page_size), 0);
    EXPECT_EQ(translated.spaces(), 0u);
    EXPECT_GT(direct.spaces(), 0u) << before;
    return one;
  }
  UserMachine direct{true}, translated{false};
};

TEST_F(Direct_, RegistersFlagsAndMemory) {
  // add rax, rcx; adc [rbx], rdx; push rsi; pop rdi; xor r8, r9; rol r10, 3; mov fs:[8], r11; std; cmp r12, r13; ud2
  const std::vector<uint8_t> code{0x48, 0x01, 0xc8, 0x48, 0x11, 0x13, 0x56, 0x5f, 0x4d, 0x31,
                                  0xc8, 0x49, 0xc1, 0xc2, 0x03, 0x64, 0x4c, 0x89, 0x1c, 0x25,
                                  8,    0,    0,    0,    0xfd, 0x4d, 0x39, 0xec, 0x0f, 0x0b};
  const CpuState state = both(code);
  EXPECT_EQ(state.rip, UserMachine::code + code.size() - 2);
  EXPECT_TRUE(state.rflags & rflags::df);
}

TEST_F(Direct_, RandomArithmetic) {
  std::mt19937_64 random{1};
  for (unsigned round = 0; round < 40; ++round) {
    std::vector<uint8_t> code;
    for (unsigned i = 0; i < 20; ++i) {
      // An operation of the arithmetic group on two registers, never RSP or RBX.
      constexpr std::array<uint8_t, 8> registers{0, 1, 2, 5, 6, 7, 0, 1};
      const auto operation = static_cast<uint8_t>((random() % 8) << 3 | 1);
      const auto modrm = static_cast<uint8_t>(0xc0 | registers[random() % 8] << 3 | registers[random() % 8]);
      code.insert(code.end(), {static_cast<uint8_t>(0x48 | (random() % 2) | (random() % 2) << 2), operation, modrm});
      code.insert(code.end(), {0x48, 0x01, 0x43, static_cast<uint8_t>(8 * (random() % 15))});  // add [rbx+n], rax
    }
    code.insert(code.end(), {0x0f, 0x0b});
    for (auto& reg : direct.gpr) reg = random();
    direct.gpr[Rbx] = UserMachine::data + random() % 0x8'0000;
    translated.gpr = direct.gpr;
    direct.flags = translated.flags = random() & rflags::status;
    (void)both(code);
  }
}

TEST_F(Direct_, VectorAndX87Registers) {
  std::vector<uint8_t> xsave(2696);
  for (size_t i = 160; i < 416; ++i) xsave[i] = static_cast<uint8_t>(i * 7);
  const uint16_t control = 0x37f;
  const uint32_t mxcsr = 0x1f80;
  std::memcpy(&xsave[0], &control, 2);
  std::memcpy(&xsave[24], &mxcsr, 4);
  xsave[512] = 2;
  direct.xsave = translated.xsave = xsave;
  // paddd xmm0, xmm1; movups [rbx], xmm0; fld1; fldpi; faddp; ud2
  const std::vector<uint8_t> code{0x66, 0x0f, 0xfe, 0xc1, 0x0f, 0x11, 0x03, 0xd9,
                                  0xe8, 0xd9, 0xeb, 0xde, 0xc1, 0x0f, 0x0b};
  const CpuState one = direct.run(code), other = translated.run(code);
  EXPECT_TRUE(std::equal(one.xsave.data.begin(), one.xsave.data.begin() + 416, other.xsave.data.begin()));
  EXPECT_GT(direct.spaces(), 0u);
}

TEST_F(Direct_, AccessedAndDirtyAreSetWhenTheyShould) {
  // mov al, [rbx]; mov [rbx+1000h], al; ud2
  (void)both({0x8a, 0x03, 0x88, 0x83, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x0b});
  for (auto* machine : {&direct, &translated}) {
    constexpr uint64_t of_interest = UserMachine::accessed | UserMachine::dirty;
    EXPECT_EQ(machine->rights(UserMachine::code) & of_interest, UserMachine::accessed);
    EXPECT_EQ(machine->rights(UserMachine::data) & of_interest, UserMachine::accessed);
    EXPECT_EQ(machine->rights(UserMachine::data + 0x1000) & of_interest, of_interest);
    EXPECT_EQ(machine->rights(UserMachine::data + 0x2000) & of_interest, 0u);
  }
}

TEST_F(Direct_, PageFaultsAreTheGuests) {
  struct Case {
    uint64_t rights;
    std::vector<uint8_t> code;
  };
  const std::vector<uint8_t> read{0x8a, 0x03, 0x0f, 0x0b}, store{0x88, 0x03, 0x0f, 0x0b}, jump{0xff, 0xe3};
  for (const uint64_t rights : {uint64_t{0}, UserMachine::present, UserMachine::present | UserMachine::user,
                                UserMachine::present | UserMachine::write,
                                UserMachine::present | UserMachine::user | UserMachine::write | UserMachine::nx}) {
    for (const auto& code : {read, store, jump}) {
      for (auto* machine : {&direct, &translated}) {
        machine->set_page(UserMachine::data, UserMachine::first + (UserMachine::data - UserMachine::base), rights);
        std::memset(machine->at(UserMachine::data), 0x0b, 16);
        *machine->at(UserMachine::data) = 0x0f;
      }
      (void)both(code);
    }
  }
  for (const uint64_t address : {uint64_t{0}, uint64_t{0x7fff'ffff'f000}, ~uint64_t{0} - 7, uint64_t{1} << 63,
                                 uint64_t{0xffff'ffff'ff60'0000}}) {
    direct.gpr[Rbx] = translated.gpr[Rbx] = address;
    for (const auto& code : {read, store, jump}) (void)both(code);
  }
}

TEST_F(Direct_, IdentificationIsTheModels) {
  direct.gpr[Rax] = 0x4000'0000;
  direct.gpr[Rcx] = 0;
  CpuState state = direct.run({0x0f, 0xa2, 0x0f, 0x0b});
  EXPECT_EQ(static_cast<uint32_t>(state.gpr[Rbx]), direct.model().cpuid(0x4000'0000, 0, {}).ebx);
  // xgetbv (on a page that was not looked at before)
  direct.gpr[Rcx] = 0;
  state = direct.run({0x0f, 0x01, 0xd0, 0x0f, 0x0b}, UserMachine::code + page_size);
  EXPECT_EQ(static_cast<uint32_t>(state.gpr[Rax]), direct.model().xcr0_allowed());
  EXPECT_GT(direct.spaces(), 0u);
}

TEST_F(Direct_, CodeOnPagesOfTheTranslatorMayChange) {
  // Code that writes to the code behind it, and comes to it: mov byte [rip+1], 0C3h → the NOP becomes RET… over and
  // over. lea rdi, [rip+9]; mov byte [rdi], 90h; mov byte [rdi], 0CCh; nop
  const std::vector<uint8_t> code{0x48, 0x8d, 0x3d, 6, 0, 0, 0, 0xc6, 0x07, 0x90, 0xc6, 0x07, 0xcc, 0x90, 0x0f, 0x0b};
  for (unsigned i = 0; i < 3; ++i) {
    const CpuState state = both(code);
    EXPECT_EQ(state.rip, UserMachine::code + 13);
  }
}

TEST_F(Direct_, StoresToPagesThatBecomeCodeAreSeen) {
  // mov [rbx], al; ud2: the page can be stored to now.
  (void)direct.run({0x88, 0x03, 0x0f, 0x0b});
  const Gpa page = UserMachine::first + (UserMachine::data - UserMachine::base);
  auto& vcpu = static_cast<JitVcpu&>(direct.cpu());
  // (Behind more of them than are noted one by one.)
  for (unsigned i = 0; i < 2000; ++i) vcpu.cpu().direct->revoke(0x1000);
  direct.engine().page_becomes_code(vcpu.cpu(), page);
  struct Seen final : GuestMemory::CodeWriteObserver {
    void code_written(Gpa gpa, uint64_t) override { at = gpa; }
    Gpa at = 0;
  } seen;
  direct.memory().set_observer(&seen);
  (void)direct.run({0x88, 0x43, 0x05, 0x0f, 0x0b});  // mov [rbx+5], al
  EXPECT_EQ(seen.at, page + 5);
  direct.memory().set_observer(&direct.engine());
}

TEST_F(Direct_, AnEndlessLoopCanBeStopped) {
  direct.prepare({0xeb, 0xfe});  // jmp $
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
    direct.cpu().stop();
  });
  EXPECT_EQ(direct.cpu().run(), ExitReason::Stopped);
  other.join();
  EXPECT_EQ(direct.cpu().store().rip, UserMachine::code);
  EXPECT_GT(direct.spaces(), 0u);
}

TEST_F(Direct_, AnotherThreadMayGoOn) {
  (void)both({0xff, 0xc0, 0x0f, 0x0b});
  std::thread other([&] { (void)both({0xff, 0xc0, 0x0f, 0x0b}); });
  other.join();
  (void)both({0xff, 0xc0, 0x0f, 0x0b});
}

TEST_F(Direct_, SingleStepAndBreakpoints) {
  // pushfq; or dword [rsp], 100h; popfq; nop; nop: #DB after the first NOP
  const CpuState state = both({0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90, 0x0f, 0x0b});
  EXPECT_EQ(state.rip, UserMachine::code + 10);
  // The same with INT 80h, a fault and a system call behind POPF: TF is in the flags that they save.
  for (const std::vector<uint8_t>& last :
       {std::vector<uint8_t>{0xcd, 0x80}, {0xcd, 0x03}, {0x0f, 0x0b}, {0x0f, 0x05}}) {
    std::vector<uint8_t> code{0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d};
    code.insert(code.end(), last.begin(), last.end());
    EXPECT_TRUE(both(code).rflags & rflags::tf || last[1] == 0x05);
  }
  (void)both({0x90, 0xcc, 0x0f, 0x0b});        // int3
  (void)both({0x90, 0xf1, 0x0f, 0x0b});        // int1
  (void)both({0x90, 0xcd, 0x03, 0x0f, 0x0b});  // int 3, the long form
  (void)both({0x90, 0xcd, 0x80, 0x0f, 0x0b});  // int 80h
  (void)both({0x90, 0xf4, 0x0f, 0x0b});        // hlt
  (void)both({0x31, 0xc9, 0xf7, 0xf1});        // div by 0
}

}  // namespace
}  // namespace caisson::jit
