// A machine for tests: memory, a bus with one port, and nothing else. Skips where /dev/kvm cannot be used.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "kvm/engine.h"

namespace caisson::kvm::test {

// What a test has to wait for and acknowledge, as a local APIC would hold it.
class FakeInterrupts final : public CpuInterrupts {
 public:
  bool pending() const override { return vector.load() >= 0 || !events.empty(); }
  std::optional<Taken> take_event(bool nmi_allowed) override {
    if (events.empty() || (events.front().event == Event::Nmi && !nmi_allowed)) return std::nullopt;
    const Taken taken = events.front();
    events.erase(events.begin());
    return taken;
  }
  bool interrupt_ready() const override { return vector.load() >= 0; }
  std::optional<uint8_t> acknowledge() override {
    const int taken = vector.exchange(-1);
    if (acknowledged) acknowledged();
    return taken < 0 ? std::nullopt : std::optional{static_cast<uint8_t>(taken)};
  }
  uint32_t read_register(uint32_t offset) override { return offset == 0x30 ? 0x5'0014 : 0; }
  void write_register(uint32_t offset, uint32_t value) override { writes.emplace_back(offset, value); }
  std::optional<uint64_t> read_msr(uint32_t msr) override {
    if (msr == x86::msr::apic_base) return apic_base();
    return msr == 0x802 ? std::optional<uint64_t>{7} : std::nullopt;
  }
  bool write_msr(uint32_t msr, uint64_t value) override {
    writes.emplace_back(msr, value);
    return msr != 0x802;
  }
  uint64_t apic_base() const override { return 0xfee0'0900; }
  uint8_t cr8() const override { return cr8_; }
  void set_cr8(uint8_t value) override { cr8_ = value; }

  std::atomic<int> vector{-1};  // a maskable interrupt that waits
  std::function<void()> acknowledged;
  std::vector<Taken> events;
  std::vector<std::pair<uint32_t, uint64_t>> writes;

 private:
  uint8_t cr8_ = 0;
};

// Port 0x100 remembers what is written and answers with its last value plus one; a write to 0x10f stops the CPU.
class PortDevice final : public Device {
 public:
  std::string_view name() const override { return "port"; }
  uint64_t read(unsigned, uint64_t, unsigned) override { return written.empty() ? 0 : written.back() + 1; }
  void write(unsigned, uint64_t offset, unsigned, uint64_t value) override {
    if (offset == 0xf) {
      stopping->stop();
    } else {
      written.push_back(value);
    }
  }
  void reset() override {}
  void save(fields::Buffer&) const override {}
  Result<> restore(std::span<const uint8_t>) override { return {}; }

  std::vector<uint64_t> written;
  Vcpu* stopping = nullptr;
};

class KvmTest : public testing::Test {
 protected:
  static constexpr uint64_t page_tables = 0x1000, gdt = 0x8000, idt = 0x9000, code = 0x20000, handlers = 0x30000,
                            stack = 0x50000, data = 0x60000;
  static constexpr uint16_t code_selector = 8, data_selector = 16;
  static constexpr uint16_t port_base = 0x100, stop_port = 0x10f;

  void SetUp() override {
    auto device = open_device();
    if (!device) GTEST_SKIP() << device.error().message;
    memory = make_memory();
    model = std::make_unique<x86::CpuModel>(*x86::CpuModel::create("host", 2, clock.tsc_hz()));
    auto made = KvmEngine::create({.memory = *memory, .bus = bus, .clock = clock, .model = *model}, std::move(*device),
                                  {.kernel_apics = false});
    if (!made) GTEST_SKIP() << made.error().message;
    engine = std::move(*made);
    auto vcpu = engine->create_vcpu(0, interrupts);
    if (!vcpu) GTEST_SKIP() << vcpu.error().message;
    cpu = std::move(*vcpu);
    port.stopping = cpu.get();
    bus.map(Space::Port, port_base, 0x10, port, 0);
    bus.map(Space::Memory, 0xd000'0000, 0x10, port, 1);
  }

  virtual std::unique_ptr<GuestMemory> make_memory() { return *GuestMemory::create(uint64_t{16} << 20); }

  template <class T>
  void put(uint64_t address, T value) {
    ASSERT_TRUE(memory->write_object(address, value));
  }
  template <class T>
  T get(uint64_t address) {
    T value{};
    EXPECT_TRUE(memory->read_object(address, value));
    return value;
  }
  void put_code(uint64_t address, std::vector<uint8_t> bytes) { ASSERT_TRUE(memory->write(address, bytes)); }

  // 64-bit mode at CPL 0, the first and the fourth GiB mapped one to one, an IDT whose handlers are 16 bytes apart.
  CpuState long_mode() {
    using namespace x86;
    put<uint64_t>(page_tables, (page_tables + 0x1000) | 3);
    put<uint64_t>(page_tables + 0x1000, (page_tables + 0x2000) | 3);
    put<uint64_t>(page_tables + 0x1000 + 8 * 3, (page_tables + 0x3000) | 3);
    for (uint64_t i = 0; i < 512; ++i) {
      put<uint64_t>(page_tables + 0x2000 + 8 * i, i << 21 | 0x83);
      put<uint64_t>(page_tables + 0x3000 + 8 * i, 0xc000'0083 + (i << 21));
    }
    put<uint64_t>(gdt, 0);
    put<uint64_t>(gdt + code_selector, 0x00af'9b00'0000'ffff);
    put<uint64_t>(gdt + data_selector, 0x00cf'9300'0000'ffff);
    for (uint64_t vector = 0; vector < 256; ++vector) {
      const uint64_t handler = handlers + 16 * vector;
      put<uint64_t>(idt + 16 * vector, (handler & 0xffff) | uint64_t{code_selector} << 16 | uint64_t{0x8e00} << 32 |
                                           (handler >> 16) << 48);
      put<uint64_t>(idt + 16 * vector + 8, 0);
    }
    CpuState state = cpu->store();
    state.gdtr = {.base = gdt, .limit = 0xff};
    state.idtr = {.base = idt, .limit = 0xfff};
    state.tr = {.base = 0xb000, .limit = 0x67, .attributes = 0x8b, .selector = 0x28};
    state.ldtr = {.base = 0, .limit = 0, .attributes = 1u << 16, .selector = 0};
    for (SegmentState& segment : state.segments) {
      segment = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xc093, .selector = data_selector};
    }
    state.segments[Cs] = {.base = 0, .limit = 0xffff'ffff, .attributes = 0xa09b, .selector = code_selector};
    state.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::pg;
    state.cr3 = page_tables;
    state.cr4 = cr4::pae | cr4::osfxsr;
    state.efer = efer::lme | efer::lma;
    state.rip = code;
    state.rflags = rflags::fixed;
    state.gpr[Rsp] = stack;
    return state;
  }

  FakeClock clock;
  Bus bus;
  PortDevice port;
  FakeInterrupts interrupts;
  std::unique_ptr<GuestMemory> memory;
  std::unique_ptr<x86::CpuModel> model;
  std::unique_ptr<KvmEngine> engine;
  std::unique_ptr<Vcpu> cpu;
};

}  // namespace caisson::kvm::test
