// A machine of two CPUs with its interrupt controllers, whose state moves between the engines; for tests.
//   Threads  the test's; devices on a loop of their own
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/event_loop.h"
#include "devices/chipset/attach.h"
#include "jit/engine.h"
#include "jit/translate/classify.h"
#include "kvm/engine.h"
#include "kvm/probe.h"
#include "machine/machine_clock.h"
#include "x86/registers.h"

namespace caisson::machine {

class NoSerial final : public CharSink {
 public:
  size_t write(std::span<const uint8_t> bytes) override { return bytes.size(); }
};

class NoPower final : public PowerSink {
 public:
  void request(PowerEvent, uint8_t) override {}
};

// Raises what a CPU waits for: the level interrupt 16, an MSI, the PIC's 5. A write to its last port ends the test, one
// to the port before stops the CPUs.
class Source final : public Device {
 public:
  std::string_view name() const override { return "source"; }
  // Whether the line was up: a level interrupt that is told to have ended too early comes again.
  uint64_t read(unsigned, uint64_t offset, unsigned) override {
    line(offset).set(false);
    return std::exchange(up_[offset == 0], false);
  }
  void write(unsigned, uint64_t offset, unsigned, uint64_t) override {
    if (offset >= 0xe) {
      ended = offset == 0xf;
      for (const auto& cpu : *cpus) cpu->stop();
    } else if (offset == 1) {
      chipset->msi().send_msi(0xfee0'0000, 0x51);
    } else {
      up_[offset == 0] = true;
      line(offset).set(true);
    }
  }
  void reset() override {
    ended = false;
    up_ = {};
  }
  void save(fields::Buffer&) const override {}
  Result<> restore(std::span<const uint8_t>) override { return {}; }

  Chipset* chipset = nullptr;
  std::vector<std::unique_ptr<Vcpu>>* cpus = nullptr;
  std::atomic<bool> ended{false};

 private:
  std::array<bool, 2> up_{};
  InterruptLine& line(uint64_t offset) { return chipset->router().line(offset == 0 ? 16 : 5); }
};

// The parameter: with the kernel's local APICs, or with ours.
class TwoEngines : public testing::TestWithParam<bool> {
 protected:
  static constexpr unsigned cpu_count = 2;
  static constexpr uint64_t page_tables = 0x1000, gdt = 0x8000, idt = 0x9000, code = 0x20000, stacks = 0x50000,
                            data = 0x60000;

  void SetUp() override {
    auto opened = kvm::open_device();
    if (!opened) GTEST_SKIP() << opened.error().message;
    // Where ring 0 is emulated its TSC is the host's, whatever the machine's is.
    deadlines_ = kvm::examine(*opened).use;
    memory_ = *GuestMemory::create(uint64_t{16} << 20);
    loop_ = *EventLoop::create(&bus_.lock());
    clock_ = std::make_unique<MachineClock>(*loop_, host_tsc_hz({}));
    auto model = x86::CpuModel::create("x86-64-v2", cpu_count, clock_->tsc_hz());
    ASSERT_TRUE(model) << model.error().message;
    model_ = std::make_unique<x86::CpuModel>(std::move(*model));
    chipset_ = *Chipset::create(bus_, *clock_, power_, serial_, {.cpus = cpu_count});
    bus_.map(Space::Port, 0x100, 0x10, source_, 0);
    source_.chipset = chipset_.get();
    const EngineServices services{*memory_, bus_, *clock_, *model_, loop_.get()};
    jit::JitOptions options;
    options.off = jit::off::seldom;
    auto jit = jit::JitEngine::create(services, options);
    ASSERT_TRUE(jit) << jit.error().message;
    jit_ = std::move(*jit);
    auto kvm = kvm::KvmEngine::create(services, std::move(*opened), {.kernel_apics = GetParam()});
    if (!kvm) GTEST_SKIP() << kvm.error().message;
    kvm_ = std::move(*kvm);
    if (GetParam() && kvm_->apics() == nullptr) GTEST_SKIP() << kvm_->apics_missing();
    for (unsigned i = 0; i < cpu_count; ++i) {
      jit_cpus_.push_back(*jit_->create_vcpu(i, chipset_->local_apic(i)));
      auto cpu = kvm_->create_vcpu(i, chipset_->local_apic(i));
      if (!cpu) GTEST_SKIP() << cpu.error().message;
      kvm_cpus_.push_back(std::move(*cpu));
      reset_.push_back(jit_cpus_.back()->store());
    }
    loop_thread_ = std::thread{[this] { loop_->run(); }};
  }

  void TearDown() override {
    if (loop_thread_.joinable()) {
      loop_->stop();
      loop_thread_.join();
    }
    const std::lock_guard hold(bus_.lock());
    if (chipset_) chipset_->apic_bus().set_keeper(nullptr);
    jit_cpus_.clear();
    kvm_cpus_.clear();
    jit_.reset();
    kvm_.reset();
    chipset_.reset();
  }

  template <class T>
  void put(uint64_t address, T value) {
    ASSERT_TRUE(memory_->write_object(address, value));
  }
  uint32_t count(uint64_t offset) {
    uint32_t value = 0;
    EXPECT_TRUE(memory_->read_object(data + offset, value));
    return value;
  }

  // In long mode at the beginning of the code, running.
  CpuState start_state(unsigned index) {
    CpuState state = reset_[index];
    state.gpr = {};
    state.gpr[x86::Rdi] = 0xfee0'0000;
    state.gpr[x86::Rsi] = 0xfec0'0000;
    state.gpr[x86::R8] = data;
    state.gpr[x86::Rsp] = stacks + 0x1000 * (index + 1);
    state.rip = code;
    state.activity = Activity::Running;
    state.rflags = x86::rflags::fixed;
    state.gdtr = {.base = gdt, .limit = 0x17};
    state.idtr = {.base = idt, .limit = 0xfff};
    state.tr = {.base = 0xb000, .limit = 0x67, .attributes = 0x8b, .selector = 0x28};
    state.ldtr = {.base = 0, .limit = 0, .attributes = 1u << 16, .selector = 0};
    for (SegmentState& segment : state.segments) {
      segment = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xc093, .selector = 16};
    }
    state.segments[x86::Cs] = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xa09b, .selector = 8};
    state.cr0 = x86::cr0::pe | x86::cr0::mp | x86::cr0::et | x86::cr0::ne | x86::cr0::wp | x86::cr0::pg;
    state.cr3 = page_tables;
    state.cr4 = x86::cr4::pae | x86::cr4::osfxsr;
    state.efer = x86::efer::lme | x86::efer::lma;
    return state;
  }

  // Memory and devices as at the payload's start: the code, and its handlers by vector. CPUs as `states` say.
  void start(bool on_kvm, std::span<const uint8_t> payload,
             const std::vector<std::pair<unsigned, const uint8_t*>>& handlers, const std::vector<CpuState>& states) {
    ASSERT_TRUE(memory_->clear());
    put<uint64_t>(page_tables, (page_tables + 0x1000) | 3);
    put<uint64_t>(page_tables + 0x1000, (page_tables + 0x2000) | 3);
    put<uint64_t>(page_tables + 0x1018, (page_tables + 0x3000) | 3);
    for (uint64_t i = 0; i < 512; ++i) {
      put<uint64_t>(page_tables + 0x2000 + 8 * i, i << 21 | 0xe3);
      put<uint64_t>(page_tables + 0x3000 + 8 * i, 0xc000'00e3 + (i << 21));
    }
    put<uint64_t>(gdt + 8, 0x00af'9b00'0000'ffff);
    put<uint64_t>(gdt + 16, 0x00cf'9300'0000'ffff);
    for (const auto& [vector, handler] : handlers) {
      const uint64_t at = code + static_cast<uint64_t>(handler - payload.data());
      put<uint64_t>(idt + 16 * vector, (at & 0xffff) | uint64_t{8} << 16 | uint64_t{0x8e00} << 32 | (at >> 16) << 48);
    }
    ASSERT_TRUE(memory_->write(code, payload));
    const std::lock_guard hold(bus_.lock());
    source_.reset();
    chipset_->reset();
    // The first CPU sends before the second one has come to its first instruction.
    for (unsigned i = 0; i < cpu_count; ++i) chipset_->local_apic(i).write_register(0xf0, 0x1ff);
    load(on_kvm, states);
  }

  // Device lock held, no CPU runs.
  void load(bool on_kvm, const std::vector<CpuState>& states) {
    on_kvm_ = on_kvm;
    source_.cpus = &cpus();
    for (unsigned i = 0; i < cpu_count; ++i) chipset_->local_apic(i).connect(*cpus()[i]);
    chipset_->apic_bus().set_keeper(on_kvm ? kvm_->apics() : nullptr);
    jit_->memory_replaced();
    for (unsigned i = 0; i < cpu_count; ++i) {
      const auto loaded = cpus()[i]->load(states[i]);
      ASSERT_TRUE(loaded) << loaded.error().message;
    }
  }

  void move() {
    const std::lock_guard hold(bus_.lock());
    std::vector<CpuState> states;
    for (const auto& cpu : cpus()) states.push_back(cpu->store());
    load(!on_kvm_, states);
    ++moves_;
  }

  std::vector<std::unique_ptr<Vcpu>>& cpus() { return on_kvm_ ? kvm_cpus_ : jit_cpus_; }

  // For a failure: where the CPUs are, and what waits for them.
  std::string where() {
    std::string text;
    for (unsigned i = 0; i < cpu_count; ++i) {
      const CpuState state = cpus()[i]->store();
      const LocalApicState apic = chipset_->local_apic(i).state();
      text +=
          fmt::format("; CPU {}: rip {:#x} rflags {:#x} activity {} lvt {:#x} count {} deadline {} now {} tsc {} irr",
                      i, state.rip, state.rflags, static_cast<int>(state.activity), apic.lvt[0], apic.initial_count,
                      apic.timer_deadline_ns, clock_->now_ns(), apic.tsc_deadline);
      for (unsigned n = 0; n < 8; ++n) text += fmt::format(" {:x}/{:x}", apic.irr[n], apic.isr[n]);
    }
    return text;
  }

  Bus bus_;
  NoSerial serial_;
  NoPower power_;
  Source source_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<MachineClock> clock_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  std::unique_ptr<Chipset> chipset_;
  std::unique_ptr<jit::JitEngine> jit_;
  std::unique_ptr<kvm::KvmEngine> kvm_;
  std::vector<std::unique_ptr<Vcpu>> jit_cpus_, kvm_cpus_;
  std::vector<CpuState> reset_;
  std::thread loop_thread_;
  bool deadlines_ = true;
  bool on_kvm_ = false;
  unsigned moves_ = 0;
};

}  // namespace caisson::machine
