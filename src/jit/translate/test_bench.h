// A machine for tests of translated code: flat 64-bit code at CPL 0, all memory mapped one to one.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bus/fake_clock.h"
#include "jit/engine.h"
#include "jit/translate/classify.h"
#include "x86/registers.h"

namespace caisson::jit::test {

class NoInterrupts final : public CpuInterrupts {
 public:
  [[nodiscard]] bool pending() const override { return false; }
  [[nodiscard]] std::optional<Taken> take_event(bool) override { return {}; }
  [[nodiscard]] bool interrupt_ready() const override { return false; }
  [[nodiscard]] std::optional<uint8_t> acknowledge() override { return {}; }
  [[nodiscard]] uint32_t read_register(uint32_t) override { return 0; }
  void write_register(uint32_t, uint32_t) override {}
  [[nodiscard]] std::optional<uint64_t> read_msr(uint32_t) override { return {}; }
  [[nodiscard]] bool write_msr(uint32_t, uint64_t) override { return false; }
  [[nodiscard]] uint64_t apic_base() const override { return 0xfee0'0900; }
  [[nodiscard]] uint8_t cr8() const override { return 0; }
  void set_cr8(uint8_t) override {}
};

inline constexpr uint64_t memory_size = 32 << 20;
inline constexpr Gpa tables = 0x1000, code = 0x10'0000, data = 0x20'0000;

// One machine: flat 64-bit code at CPL 0, everything mapped one to one, no IDT, so that UD2 ends a run.
class Bench {
 public:
  // `rom`: read-only memory that ends at 4 GiB, at most 2 MiB.
  explicit Bench(JitOptions options, std::span<const uint8_t> rom = {}) {
    options.off |= off::seldom;
    memory_ = std::move(*GuestMemory::create(memory_size, {.rom_room = rom.size()}));
    EXPECT_TRUE(rom.empty() || memory_->set_rom(rom).has_value());
    model_ = std::make_unique<x86::CpuModel>(std::move(*x86::CpuModel::create("host", 1, clock_.tsc_hz())));
    engine_ = std::move(*JitEngine::create({*memory_, bus_, clock_, *model_}, options));
    cpu_ = std::move(*engine_->create_vcpu(0, interrupts_));
    reset_ = cpu_->store();
    // PML4 → PDPT → PD with 2 MiB pages.
    put(tables, tables + 0x1003);
    put(tables + 0x1000, tables + 0x2003);
    for (uint64_t i = 0; i < memory_size >> 21; ++i) put(tables + 0x2000 + 8 * i, i << 21 | 0x83);
    put(tables + 0x1018, tables + 0x3003);
    put(tables + 0x3ff8, 0xffe0'0083);
  }

  [[nodiscard]] static JitOptions interpreter() {
    JitOptions options;
    options.translate = false;
    return options;
  }

  void put(Gpa gpa, uint64_t value) { EXPECT_TRUE(memory_->write_object(gpa, value)); }

  // `rounds`: how often the block runs, so that chained and cached translations are used as well.
  CpuState run(const std::vector<uint8_t>& bytes, const std::array<uint64_t, 16>& gpr, uint64_t rflags, uint64_t seed,
               uint64_t at) {
    std::mt19937_64 random(seed);
    auto* words = reinterpret_cast<uint64_t*>(memory_->base() + data);
    for (unsigned i = 0; i < 0x4'0000 / 8; ++i) words[i] = random();
    // The same code again keeps its translation; without any it is there already.
    const bool there = bytes.empty() || std::memcmp(memory_->base() + at, bytes.data(), bytes.size()) == 0;
    EXPECT_TRUE(there || memory_->write(at, bytes));
    CpuState state = reset_;
    state.gpr = gpr;
    state.rip = at;
    state.rflags = rflags;
    state.cr0 = 0x8005'0033;
    state.cr3 = tables;
    state.cr4 = x86::cr4::pae | x86::cr4::pge | x86::cr4::osfxsr | x86::cr4::osxmmexcpt | x86::cr4::osxsave;
    state.efer = x86::efer::lme | x86::efer::lma | x86::efer::nxe | x86::efer::sce;
    state.xcr0 = model_->xcr0_allowed();
    for (auto& segment : state.segments)
      segment = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xc093, .selector = 16};
    state.segments[1] = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xa09b, .selector = 8};
    state.segments[4].base = data + 0x100;
    state.segments[5].base = data + 0x2000;
    state.idtr = {.base = 0, .limit = 0};
    EXPECT_TRUE(cpu_->load(state).has_value());
    reason_ = cpu_->run();
    EXPECT_TRUE(reason_ == ExitReason::TripleFault || reason_ == ExitReason::InternalError);
    return cpu_->store();
  }

  // How the last run ended: TripleFault, or InternalError with error().
  [[nodiscard]] ExitReason reason() const { return reason_; }
  [[nodiscard]] std::string error() const { return cpu_->error(); }
  [[nodiscard]] JitEngine& engine() { return *engine_; }
  [[nodiscard]] const uint8_t* memory() const { return memory_->base(); }
  [[nodiscard]] GuestMemory& guest_memory() { return *memory_; }
  [[nodiscard]] Bus& bus() { return bus_; }

 private:
  Bus bus_;
  FakeClock clock_;
  NoInterrupts interrupts_;
  std::unique_ptr<x86::CpuModel> model_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<JitEngine> engine_;
  std::unique_ptr<Vcpu> cpu_;
  CpuState reset_;
  ExitReason reason_ = ExitReason::TripleFault;
};

}  // namespace caisson::jit::test
