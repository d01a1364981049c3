// The dirty log of each engine holds the pages that the guest writes to, and next to nothing else.
#include "memory/dirty_log.h"

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "jit/engine.h"
#include "jit/translate/classify.h"
#include "kvm/engine.h"
#include "kvm/probe.h"
#include "x86/registers.h"

namespace caisson::machine {
namespace {

using namespace x86;

class NoInterrupts final : public CpuInterrupts {
 public:
  bool pending() const override { return false; }
  std::optional<Taken> take_event(bool) override { return std::nullopt; }
  bool interrupt_ready() const override { return false; }
  std::optional<uint8_t> acknowledge() override { return std::nullopt; }
  uint32_t read_register(uint32_t) override { return 0; }
  void write_register(uint32_t, uint32_t) override {}
  std::optional<uint64_t> read_msr(uint32_t) override { return apic_base(); }
  bool write_msr(uint32_t, uint64_t) override { return true; }
  uint64_t apic_base() const override { return 0xfee0'0900; }
  uint8_t cr8() const override { return 0; }
  void set_cr8(uint8_t) override {}
};

// A write to its port stops the CPU.
class Stopper final : public Device {
 public:
  std::string_view name() const override { return "stopper"; }
  uint64_t read(unsigned, uint64_t, unsigned) override { return 0; }
  void write(unsigned, uint64_t, unsigned, uint64_t) override { cpu->stop(); }
  void reset() override {}
  void save(fields::Buffer&) const override {}
  Result<> restore(std::span<const uint8_t>) override { return {}; }
  Vcpu* cpu = nullptr;
};

enum class Kind { Jit, Bitmap, Ring };

class DirtyLogOf : public testing::TestWithParam<Kind> {
 protected:
  static constexpr uint64_t memory_size = uint64_t{32} << 20;
  static constexpr uint64_t page_tables = 0x1000, code = 0x20000, first = 0x10'0000;

  void SetUp() override {
    memory_ = *GuestMemory::create(memory_size);
    model_ = std::make_unique<CpuModel>(*CpuModel::create("x86-64-v2", 1, clock_.tsc_hz()));
    bus_.map(Space::Port, 0x100, 1, stopper_, 0);
    const EngineServices services{*memory_, bus_, clock_, *model_};
    if (GetParam() == Kind::Jit) {
      jit::JitOptions options;
      options.off = jit::off::seldom;
      engine_ = *jit::JitEngine::create(services, options);
    } else {
      auto device = kvm::open_device();
      if (!device) GTEST_SKIP() << device.error().message;
      // Where ring 0 is emulated the kernel runs on and on with a full ring.
      if (GetParam() == Kind::Ring && !kvm::examine(*device).use) many_ = 500;
      auto engine = kvm::KvmEngine::create(services, std::move(*device),
                                           {.kernel_apics = false, .dirty_ring = GetParam() == Kind::Ring ? 1024u : 0});
      if (!engine) GTEST_SKIP() << engine.error().message;
      engine_ = std::move(*engine);
    }
    auto cpu = engine_->create_vcpu(0, interrupts_);
    ASSERT_TRUE(cpu) << cpu.error().message;
    cpu_ = std::move(*cpu);
    stopper_.cpu = cpu_.get();

    put<uint64_t>(page_tables, (page_tables + 0x1000) | 0x23);
    put<uint64_t>(page_tables + 0x1000, (page_tables + 0x2000) | 0x23);
    for (uint64_t i = 0; i < 512; ++i) put<uint64_t>(page_tables + 0x2000 + 8 * i, i << 21 | 0xe3);
    // 1: mov [rdi],ecx; add rdi,2000h; dec ecx; jnz 1b; mov dx,100h; out dx,al; jmp $
    const std::vector<uint8_t> bytes{0x89, 0x0f, 0x48, 0x81, 0xc7, 0,    0x20, 0,    0,    0xff,
                                     0xc9, 0x75, 0xf3, 0x66, 0xba, 0x00, 0x01, 0xee, 0xeb, 0xfe};
    ASSERT_TRUE(memory_->write(code, bytes));
  }
  void TearDown() override {
    cpu_.reset();
    engine_.reset();
  }
  template <class T>
  void put(uint64_t address, T value) {
    ASSERT_TRUE(memory_->write_object(address, value));
  }

  // The guest writes to every second page from `from` on.
  void write_pages(uint64_t from, uint64_t count) { run(code, from, count); }

  void run(uint64_t rip, uint64_t rdi, uint64_t rcx) {
    CpuState state = cpu_->store();
    state.gpr[Rdi] = rdi;
    state.gpr[Rcx] = rcx;
    state.rip = rip;
    state.rflags = rflags::fixed;
    state.tr = {.base = 0xb000, .limit = 0x67, .attributes = 0x8b, .selector = 0x28};
    state.ldtr = {.base = 0, .limit = 0, .attributes = 1u << 16, .selector = 0};
    for (SegmentState& segment : state.segments) {
      segment = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xc093, .selector = 16};
    }
    state.segments[Cs] = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xa09b, .selector = 8};
    state.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::pg;
    state.cr3 = page_tables;
    state.cr4 = cr4::pae;
    state.efer = efer::lme | efer::lma;
    ASSERT_TRUE(cpu_->load(state));
    ASSERT_EQ(cpu_->run(), ExitReason::Stopped) << cpu_->error();
  }

  void expect_pages(DirtyLog& log, uint64_t from, uint64_t count, uint64_t others) {
    DirtyPages pages{memory_size / page_size};
    const auto done = log.take(pages);
    ASSERT_TRUE(done) << done.error().message;
    uint64_t found = 0;
    for (uint64_t i = 0; i < count; ++i) found += pages.contains(from / page_size + 2 * i);
    EXPECT_EQ(found, count);
    EXPECT_LE(pages.count(), count + others);
  }

  uint64_t many_ = 3000;
  FakeClock clock_;
  Bus bus_;
  Stopper stopper_;
  NoInterrupts interrupts_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<CpuModel> model_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Vcpu> cpu_;
};

// 3000 pages: more than a ring of 1024 holds.
TEST_P(DirtyLogOf, HoldsWhatIsWrittenSinceItWasAsked) {
  write_pages(first, 100);
  auto log = DirtyLog::start(*memory_, engine_->write_log());
  ASSERT_TRUE(log) << log.error().message;
  expect_pages(**log, first, 0, 0);
  write_pages(first, many_);
  expect_pages(**log, first, many_, 8);
  expect_pages(**log, first, 0, 0);
  write_pages(first + 0x1000, 20);
  put<uint64_t>(first + 0x50'0000, 1);
  expect_pages(**log, first + 0x1000, 20, 9);
  write_pages(first + 0x1000, 20);
  expect_pages(**log, first + 0x1000, 20, 8);
}

TEST_P(DirtyLogOf, CanBeStartedAgain) {
  for (int i = 0; i < 3; ++i) {
    auto log = DirtyLog::start(*memory_, engine_->write_log());
    ASSERT_TRUE(log) << log.error().message;
    write_pages(first, 10);
    log->reset();
    write_pages(first + 0x40'0000, 10);
    log = DirtyLog::start(*memory_, engine_->write_log());
    ASSERT_TRUE(log) << log.error().message;
    write_pages(first + 0x80'0000, 10);
    expect_pages(**log, first + 0x80'0000, 10, 8);
  }
}

TEST_P(DirtyLogOf, HoldsAPageThatIsRunAfterItWasWritten) {
  // mov dword [rdi], "out dx,al; jmp $"; mov dx,100h; jmp rdi
  const std::vector<uint8_t> bytes{0xc7, 0x07, 0xee, 0xeb, 0xfe, 0x90, 0x66, 0xba, 0x00, 0x01, 0xff, 0xe7};
  ASSERT_TRUE(memory_->write(code + 0x100, bytes));
  auto log = DirtyLog::start(*memory_, engine_->write_log());
  ASSERT_TRUE(log) << log.error().message;
  run(code + 0x100, first, 0);
  expect_pages(**log, first, 1, 8);
}

INSTANTIATE_TEST_SUITE_P(Engines, DirtyLogOf, testing::Values(Kind::Jit, Kind::Bitmap, Kind::Ring),
                         [](const auto& kind) {
                           return kind.param == Kind::Jit      ? "Jit"
                                  : kind.param == Kind::Bitmap ? "KvmBitmap"
                                                               : "KvmRing";
                         });

}  // namespace
}  // namespace caisson::machine
