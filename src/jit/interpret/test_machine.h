// A machine for interpreter tests: memory with page tables and descriptors for 64-bit code, one CPU, no devices but a
// port that remembers. Interrupt handlers are addresses: after a step that faulted, RIP tells the vector.
#pragma once

#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "jit/engine.h"
#include "jit/fpu.h"
#include "jit/interpret/interpreter.h"
#include "jit/mmu/mmu.h"

namespace caisson::jit::test {

class FakeInterrupts final : public CpuInterrupts {
 public:
  bool pending() const override { return false; }
  std::optional<Taken> take_event(bool) override { return std::nullopt; }
  bool interrupt_ready() const override { return false; }
  std::optional<uint8_t> acknowledge() override { return std::nullopt; }
  uint32_t read_register(uint32_t) override { return 0; }
  void write_register(uint32_t, uint32_t) override {}
  std::optional<uint64_t> read_msr(uint32_t) override { return 0xfee0'0900; }
  bool write_msr(uint32_t, uint64_t) override { return true; }
  uint64_t apic_base() const override { return 0xfee0'0900; }
  uint8_t cr8() const override { return cr8_; }
  void set_cr8(uint8_t value) override { cr8_ = value; }

 private:
  uint8_t cr8_ = 0;
};

// Answers reads with what was queued and remembers writes.
class PortDevice final : public Device {
 public:
  struct Write {
    uint64_t offset;
    unsigned size;
    uint64_t value;
  };
  std::string_view name() const override { return "port"; }
  uint64_t read(unsigned, uint64_t, unsigned) override {
    if (answers.empty()) return 0;
    const uint64_t value = answers.front();
    answers.pop_front();
    return value;
  }
  void write(unsigned, uint64_t offset, unsigned size, uint64_t value) override {
    writes.push_back({offset, size, value});
  }
  void reset() override {}
  void save(fields::Buffer&) const override {}
  Result<> restore(std::span<const uint8_t>) override { return {}; }

  std::deque<uint64_t> answers;
  std::vector<Write> writes;
};

class Machine {
 public:
  static constexpr uint64_t page_tables = 0x1000, gdt = 0x8000, idt = 0x9000, tss = 0xb000, kernel_stack = 0xf000,
                            ist_stack = 0x11000, handlers = 0x12000, code = 0x20000;
  static constexpr uint16_t kernel_code = 0x08, kernel_data = 0x10, user_code = 0x18, user_data = 0x20,
                            tss_selector = 0x28;
  static constexpr uint64_t mapped = uint64_t{1} << 30;  // linear = physical

  explicit Machine(uint64_t memory_size = uint64_t{512} << 20) {
    auto made = GuestMemory::create(memory_size);
    EXPECT_TRUE(made.has_value());
    memory_ = std::move(*made);
    auto model = x86::CpuModel::create("host", 1, clock.tsc_hz());
    EXPECT_TRUE(model.has_value());
    model_ = std::make_unique<x86::CpuModel>(std::move(*model));
    auto engine = JitEngine::create({.memory = *memory_, .bus = bus, .clock = clock, .model = *model_}, [] {
      JitOptions options;
      options.translate = false;
      return options;
    }());
    EXPECT_TRUE(engine.has_value());
    engine_ = std::move(*engine);
    bus.map(Space::Port, 0x100, 0x100, port, 0);
    cpu_ = std::make_unique<Cpu>();
    cpu_->memory = memory_.get();
    cpu_->bus = &bus;
    cpu_->clock = &clock;
    cpu_->model = model_.get();
    cpu_->interrupts = &interrupts;
    cpu_->engine = engine_.get();
    for (Tlb& tlb : cpu_->tlb) {
      tlb.read_tag.fill(invalid_tag);
      tlb.write_tag.fill(invalid_tag);
    }
    reset_cpu(*cpu_, false);
  }

  Cpu& cpu() { return *cpu_; }
  GuestMemory& memory() { return *memory_; }
  const x86::CpuModel& model() const { return *model_; }

  template <class T>
  void put(uint64_t address, T value) {
    ASSERT_TRUE(memory_->write_object(address, value));
  }
  template <class T>
  T get(uint64_t address) {
    T value{};
    EXPECT_TRUE(memory_->read_object(address, value));
    return value;
  }
  void put_code(uint64_t address, std::initializer_list<uint8_t> bytes) {
    ASSERT_TRUE(memory_->write(address, std::vector<uint8_t>(bytes)));
  }

  static constexpr uint64_t segment_descriptor(uint32_t base, uint32_t limit, uint8_t access, uint8_t flags) {
    return (limit & 0xffff) | uint64_t{base & 0xff'ffff} << 16 | uint64_t{access} << 40 |
           uint64_t{limit >> 16 & 15} << 48 | uint64_t{flags} << 52 | uint64_t{base >> 24} << 56;
  }

  // 64-bit mode at CPL 0, or 3 (`user`), with everything mapped, an IDT and a TSS.
  void long_mode(bool user) {
    using namespace x86;
    Cpu& c = *cpu_;
    put<uint64_t>(page_tables, (page_tables + 0x1000) | 7);
    put<uint64_t>(page_tables + 0x1000, (page_tables + 0x2000) | 7);
    for (uint64_t i = 0; i < 512; ++i) put<uint64_t>(page_tables + 0x2000 + 8 * i, i << 21 | 0x87);
    put<uint64_t>(gdt, 0);
    put<uint64_t>(gdt + kernel_code, segment_descriptor(0, 0xfffff, 0x9b, 0xa));
    put<uint64_t>(gdt + kernel_data, segment_descriptor(0, 0xfffff, 0x93, 0xc));
    put<uint64_t>(gdt + user_code, segment_descriptor(0, 0xfffff, 0xfb, 0xa));
    put<uint64_t>(gdt + user_data, segment_descriptor(0, 0xfffff, 0xf3, 0xc));
    put<uint64_t>(gdt + tss_selector, segment_descriptor(tss, 0x67, 0x8b, 0));
    put<uint64_t>(gdt + tss_selector + 8, 0);
    for (uint64_t vector = 0; vector < 256; ++vector) set_gate(static_cast<uint8_t>(vector), 3, 0);
    put<uint64_t>(tss + 4, kernel_stack);
    put<uint64_t>(tss + 0x24, ist_stack);
    c.gdtr = {.base = gdt, .limit = 0xff};
    c.idtr = {.base = idt, .limit = 0xfff};
    c.tr = {.base = tss, .limit = 0x67, .attributes = 0x8b, .selector = tss_selector};
    c.ldtr = {.base = 0, .limit = 0, .attributes = 1u << 16, .selector = 0};
    c.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::pg;
    c.cr3 = page_tables;
    c.cr4 = cr4::pae | cr4::pge | cr4::osfxsr | cr4::osxmmexcpt | (model_->has(Feature::Xsave) ? cr4::osxsave : 0);
    c.efer = efer::lme | efer::lma | efer::sce | efer::nxe;
    c.xcr0 = model_->has(Feature::Xsave) ? model_->xcr0_allowed() : 1;
    c.rflags = rflags::fixed | rflags::interrupt;
    const unsigned dpl = user ? 3 : 0;
    c.segments[Cs] = {.base = 0,
                      .limit = 0xffff'ffff,
                      .attributes = 0xa09b | dpl << 5,
                      .selector = static_cast<uint16_t>(user ? user_code | 3 : int{kernel_code})};
    for (unsigned reg : {Es, Ss, Ds, Fs, Gs}) {
      c.segments[reg] = {.base = 0,
                         .limit = 0xffff'ffff,
                         .attributes = 0xc093 | dpl << 5,
                         .selector = static_cast<uint16_t>(user ? user_data | 3 : int{kernel_data})};
    }
    c.rip = code;
    c.gpr[Rsp] = 0x30000;
    update_mode(c);
    mmu::flush_all(c);
  }

  void set_gate(uint8_t vector, unsigned dpl, unsigned ist) {
    const uint64_t target = handlers + vector * 16u;
    put<uint64_t>(idt + vector * 16u, (target & 0xffff) | uint64_t{kernel_code} << 16 | uint64_t{ist} << 32 |
                                          (0x8e00ull | dpl << 13) << 32 | (target >> 16 & 0xffff) << 48);
    put<uint64_t>(idt + vector * 16u + 8, target >> 32);
  }

  // After a step: the vector whose handler is about to run.
  std::optional<unsigned> taken() const {
    const uint64_t rip = cpu_->rip;
    if (rip < handlers || rip >= handlers + 256 * 16) return std::nullopt;
    return static_cast<unsigned>((rip - handlers) / 16);
  }
  static bool has_error(unsigned vector) { return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17; }
  // The frame of a 64-bit handler.
  struct Frame {
    uint64_t error = 0, rip = 0, cs = 0, rflags = 0, rsp = 0, ss = 0;
  };
  Frame frame() {
    Frame f;
    uint64_t at = cpu_->gpr[x86::Rsp];
    if (has_error(*taken())) {
      f.error = get<uint64_t>(at);
      at += 8;
    }
    f.rip = get<uint64_t>(at);
    f.cs = get<uint64_t>(at + 8);
    f.rflags = get<uint64_t>(at + 16);
    f.rsp = get<uint64_t>(at + 24);
    f.ss = get<uint64_t>(at + 32);
    return f;
  }

  FakeClock clock;
  Bus bus;
  PortDevice port;
  FakeInterrupts interrupts;

 private:
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  std::unique_ptr<JitEngine> engine_;
  std::unique_ptr<Cpu> cpu_;
};

}  // namespace caisson::jit::test
