#include "devices/chipset/local_apic.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "bus/fake_clock.h"
#include "devices/chipset/layout.h"
#include "devices/device_test_support.h"

namespace caisson {
namespace {

class CountingSink final : public CpuSink {
 public:
  void interrupts_changed() noexcept override { ++calls; }
  std::atomic<unsigned> calls{0};
};

class RecordingEoi final : public EoiListener {
 public:
  void end_of_interrupt(uint8_t vector) override { vectors.push_back(vector); }
  void announce_pins() override {}
  std::vector<uint8_t> vectors;
};

class FakePic final : public ExtIntSource {
 public:
  std::optional<uint8_t> acknowledge_ext_int() override { return vector; }
  std::optional<uint8_t> vector;
};

constexpr uint32_t id = 0x20, version = 0x30, tpr = 0x80, ppr = 0xa0, eoi = 0xb0, ldr = 0xd0, dfr = 0xe0, svr = 0xf0;
constexpr uint32_t isr = 0x100, irr = 0x200, esr = 0x280, icr_low = 0x300, icr_high = 0x310, lvt_timer = 0x320;
constexpr uint32_t lvt_lint0 = 0x350, lvt_error = 0x370, initial_count = 0x380, current_count = 0x390, divide = 0x3e0;
constexpr uint32_t apic_base_msr = 0x1b, tsc_deadline_msr = 0x6e0;
constexpr uint64_t base_enabled = 0xfee0'0800;
constexpr uint64_t base_x2apic = 0xfee0'0c00;

class LocalApicTest : public ::testing::Test {
 protected:
  static constexpr unsigned cpus = 20;
  LocalApicTest() : bus_(lock_, clock_, {.cpus = cpus}) {
    bus_.connect(static_cast<EoiListener&>(eoi_));
    bus_.connect(static_cast<ExtIntSource&>(pic_));
    for (unsigned i = 0; i < cpus; ++i) apic(i).connect(sinks_[i]);
  }
  LocalApic& apic(unsigned i) { return bus_.local_apic(i); }
  void enable_all() {
    for (unsigned i = 0; i < cpus; ++i) apic(i).write_register(svr, 0x1ff);
  }
  void x2apic_all() {
    for (unsigned i = 0; i < cpus; ++i) {
      ASSERT_TRUE(apic(i).write_msr(apic_base_msr, base_x2apic | (i == 0 ? 0x100 : 0)));
      ASSERT_TRUE(apic(i).write_msr(0x80f, 0x1ff));
    }
  }
  std::vector<unsigned> having(uint8_t vector) {
    std::vector<unsigned> found;
    for (unsigned i = 0; i < cpus; ++i) {
      LocalApic::State state{};
      EXPECT_TRUE(fields::restore(state, test_support::saved(apic(i))).has_value());
      if ((state.irr[vector / 32] >> vector % 32 & 1) != 0) found.push_back(i);
    }
    return found;
  }

  std::mutex lock_;
  FakeClock clock_;
  ApicBus bus_;
  RecordingEoi eoi_;
  FakePic pic_;
  std::array<CountingSink, cpus> sinks_;
};

using Cpus = std::vector<unsigned>;

TEST_F(LocalApicTest, PowerOnState) {
  EXPECT_EQ(apic(0).apic_base(), 0xfee0'0900u);
  EXPECT_EQ(apic(1).apic_base(), 0xfee0'0800u);
  EXPECT_EQ(apic(3).read_register(id), 3u << 24);
  EXPECT_EQ(apic(0).read_register(version), 0x0005'0014u);
  EXPECT_EQ(apic(0).read_register(svr), 0xffu);
  EXPECT_EQ(apic(0).read_register(dfr), 0xffff'ffffu);
  EXPECT_EQ(apic(0).read_register(lvt_timer), 0x1'0000u);
  EXPECT_EQ(apic(0).read_register(lvt_lint0), 0x700u) << "virtual wire on the first CPU";
  EXPECT_EQ(apic(1).read_register(lvt_lint0), 0x1'0000u);
  EXPECT_FALSE(apic(0).pending());
}

TEST_F(LocalApicTest, SoftwareDisabledTakesNoFixedInterrupts) {
  EXPECT_FALSE(bus_.deliver({.destination = 1, .vector = 0x40}));
  apic(1).write_register(svr, 0x1ff);
  EXPECT_TRUE(bus_.deliver({.destination = 1, .vector = 0x40}));
  EXPECT_TRUE(apic(1).pending());
  EXPECT_EQ(sinks_[1].calls, 1u);
  // Masks come back with the disable, and cannot be taken off while it lasts.
  apic(1).write_register(lvt_timer, 0x40);
  apic(1).write_register(svr, 0xff);
  apic(1).write_register(lvt_timer, 0x40);
  EXPECT_EQ(apic(1).read_register(lvt_timer), 0x1'0040u);
}

TEST_F(LocalApicTest, PriorityAndEoi) {
  enable_all();
  bus_.deliver({.destination = 0, .vector = 0x41});
  bus_.deliver({.destination = 0, .vector = 0x93});
  EXPECT_EQ(apic(0).read_register(irr + 0x20), 0x2u);
  EXPECT_EQ(apic(0).acknowledge(), 0x93);
  EXPECT_EQ(apic(0).read_register(isr + 0x40), 1u << 0x13);
  EXPECT_EQ(apic(0).read_register(ppr), 0x90u);
  EXPECT_FALSE(apic(0).interrupt_ready());
  EXPECT_EQ(apic(0).acknowledge(), std::nullopt);
  bus_.deliver({.destination = 0, .vector = 0x9f});
  EXPECT_FALSE(apic(0).interrupt_ready()) << "the same class does not nest";
  bus_.deliver({.destination = 0, .vector = 0xa0});
  EXPECT_EQ(apic(0).acknowledge(), 0xa0);
  apic(0).write_register(eoi, 0);
  apic(0).write_register(eoi, 0);
  EXPECT_EQ(apic(0).acknowledge(), 0x9f);
  apic(0).write_register(eoi, 0);
  EXPECT_EQ(apic(0).acknowledge(), 0x41);
  apic(0).write_register(eoi, 0);
  EXPECT_FALSE(apic(0).pending());
  EXPECT_TRUE(eoi_.vectors.empty()) << "edges need no EOI broadcast";
}

TEST_F(LocalApicTest, TaskPriorityHoldsBackAndReleases) {
  enable_all();
  apic(0).set_cr8(4);
  EXPECT_EQ(apic(0).read_register(tpr), 0x40u);
  bus_.deliver({.destination = 0, .vector = 0x4f});
  EXPECT_FALSE(apic(0).pending());
  const unsigned calls = sinks_[0].calls;
  apic(0).write_register(tpr, 0x30);
  EXPECT_GT(sinks_[0].calls, calls) << "the CPU is told when lowering TPR makes an interrupt ready";
  EXPECT_EQ(apic(0).cr8(), 3);
  EXPECT_EQ(apic(0).acknowledge(), 0x4f);
}

TEST_F(LocalApicTest, LevelInterruptsBroadcastTheirEoi) {
  enable_all();
  bus_.deliver({.destination = 2, .vector = 0x55, .level = true});
  EXPECT_EQ(apic(2).acknowledge(), 0x55);
  apic(2).write_register(eoi, 0);
  EXPECT_EQ(eoi_.vectors, std::vector<uint8_t>{0x55});
  bus_.deliver({.destination = 2, .vector = 0x55});
  EXPECT_EQ(apic(2).acknowledge(), 0x55);
  apic(2).write_register(eoi, 0);
  EXPECT_EQ(eoi_.vectors.size(), 1u) << "the trigger mode goes with the interrupt, not with the vector";
}

TEST_F(LocalApicTest, PhysicalLogicalAndClusterDestinations) {
  enable_all();
  bus_.deliver({.destination = 0xff, .vector = 0x30});
  EXPECT_EQ(having(0x30).size(), cpus);
  for (unsigned i = 0; i < 8; ++i) apic(i).write_register(ldr, 1u << (24 + i));
  bus_.deliver({.destination = 0x0a, .logical = true, .vector = 0x31});
  EXPECT_EQ(having(0x31), (Cpus{1, 3}));
  for (unsigned i = 0; i < 8; ++i) {
    apic(i).write_register(dfr, 0x0fff'ffff);
    apic(i).write_register(ldr, ((i / 4) << 4 | 1u << (i % 4)) << 24);
  }
  bus_.deliver({.destination = 0x15, .logical = true, .vector = 0x32});
  EXPECT_EQ(having(0x32), (Cpus{4, 6}));
  EXPECT_FALSE(bus_.deliver({.destination = 200, .vector = 0x33}));
}

TEST_F(LocalApicTest, LowestPriorityPicksOne) {
  enable_all();
  for (unsigned i = 0; i < 4; ++i) apic(i).write_register(ldr, 1u << (24 + i));
  apic(0).set_cr8(2);
  apic(1).set_cr8(3);
  apic(2).set_cr8(1);
  apic(3).set_cr8(2);
  const ApicMessage message{.destination = 0x0f, .logical = true, .mode = DeliveryMode::LowestPriority, .vector = 0x61};
  EXPECT_TRUE(bus_.deliver(message));
  EXPECT_EQ(having(0x61), Cpus{2});
  apic(2).set_cr8(15);
  EXPECT_TRUE(
      bus_.deliver({.destination = 0x0f, .logical = true, .mode = DeliveryMode::LowestPriority, .vector = 0x72}));
  EXPECT_EQ(having(0x72).size(), 1u);
}

TEST_F(LocalApicTest, MsiFields) {
  enable_all();
  bus_.send_msi(0xfee0'5000, 0x0041);
  EXPECT_EQ(having(0x41), Cpus{5});
  bus_.send_msi(0xfee0'5000, 0x8042);  // level, de-asserted
  EXPECT_TRUE(having(0x42).empty());
  bus_.send_msi(0xfed0'5000, 0x0043);
  EXPECT_TRUE(having(0x43).empty());
  bus_.send_msi(0xfee0'5000, 0x0405);  // an illegal vector with NMI delivery is none
  const auto taken = apic(5).take_event(true);
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->event, CpuInterrupts::Event::Nmi);
}

// The sequence with which Linux starts a CPU.
TEST_F(LocalApicTest, InitSipiSipi) {
  enable_all();
  apic(1).write_register(tpr, 0x20);
  apic(0).write_register(icr_high, 1u << 24);
  apic(0).write_register(icr_low, 0xc500);  // INIT, level, assert
  EXPECT_EQ(apic(0).read_register(icr_low) & 0x1000, 0u) << "delivery status is idle";
  apic(0).write_register(icr_low, 0x8500);  // INIT, level, de-assert
  auto taken = apic(1).take_event(false);
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->event, CpuInterrupts::Event::Init);
  EXPECT_EQ(apic(1).take_event(true), std::nullopt);
  EXPECT_EQ(apic(1).read_register(tpr), 0u);
  EXPECT_EQ(apic(1).read_register(svr), 0xffu);
  apic(0).write_register(icr_low, 0x0699);
  EXPECT_TRUE(apic(1).pending());
  taken = apic(1).take_event(false);
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->event, CpuInterrupts::Event::Sipi);
  EXPECT_EQ(taken->sipi_vector, 0x99);
  EXPECT_FALSE(apic(1).pending());
  EXPECT_EQ(sinks_[1].calls, 2u);
}

TEST_F(LocalApicTest, ShorthandsAndNmi) {
  enable_all();
  apic(3).write_register(icr_low, 0x4'4050);  // self
  EXPECT_EQ(having(0x50), Cpus{3});
  apic(3).write_register(icr_low, 0xc'4051);  // all but self
  EXPECT_EQ(having(0x51).size(), cpus - 1);
  apic(3).write_register(icr_low, 0x8'4052);  // all
  EXPECT_EQ(having(0x52).size(), cpus);
  apic(3).write_register(icr_low, 0xc'4400);  // NMI to the others
  EXPECT_EQ(apic(4).take_event(false), std::nullopt) << "held back while NMIs are blocked";
  EXPECT_TRUE(apic(4).take_event(true));
  EXPECT_FALSE(apic(3).take_event(true));
}

TEST_F(LocalApicTest, ErrorsLatchOnWrite) {
  enable_all();
  apic(0).write_register(lvt_error, 0xfe);
  apic(0).write_register(icr_low, 0x4'4003);  // vector 3 to self
  EXPECT_EQ(apic(0).acknowledge(), 0xfe);
  EXPECT_EQ(apic(0).read_register(esr), 0u);
  apic(0).write_register(esr, 0);
  EXPECT_EQ(apic(0).read_register(esr), 1u << 5);
  apic(0).write_register(esr, 0);
  EXPECT_EQ(apic(0).read_register(esr), 0u);
  bus_.deliver({.destination = 0, .vector = 2});
  (void)apic(0).read_register(0x40);
  apic(0).write_register(esr, 0);
  EXPECT_EQ(apic(0).read_register(esr), 1u << 6 | 1u << 7);
  // An error vector that is itself illegal ends the story.
  apic(0).write_register(lvt_error, 0x05);
  apic(0).write_register(icr_low, 0x4'4003);
  apic(0).write_register(esr, 0);
  EXPECT_EQ(apic(0).read_register(esr), 1u << 5);
}

TEST_F(LocalApicTest, OneShotTimer) {
  enable_all();
  apic(0).write_register(divide, 0x3);  // by 16
  apic(0).write_register(lvt_timer, 0x40);
  apic(0).write_register(initial_count, 1000);
  clock_.advance(8'000);
  EXPECT_EQ(apic(0).read_register(current_count), 500u);
  clock_.advance(7'999);
  EXPECT_FALSE(apic(0).pending());
  clock_.advance(1);
  EXPECT_EQ(apic(0).acknowledge(), 0x40);
  EXPECT_EQ(apic(0).read_register(current_count), 0u);
  apic(0).write_register(eoi, 0);
  clock_.advance(1'000'000);
  EXPECT_FALSE(apic(0).pending());
  // A shorter count after a longer one, and none after 0.
  apic(0).write_register(initial_count, 1'000'000);
  apic(0).write_register(initial_count, 100);
  clock_.advance(1'600);
  EXPECT_EQ(apic(0).acknowledge(), 0x40);
  apic(0).write_register(eoi, 0);
  apic(0).write_register(initial_count, 100);
  apic(0).write_register(initial_count, 0);
  clock_.advance(1'000'000'000);
  EXPECT_FALSE(apic(0).pending());
}

TEST_F(LocalApicTest, PeriodicTimerKeepsItsPhase) {
  enable_all();
  apic(0).write_register(divide, 0xb);  // by 1
  apic(0).write_register(lvt_timer, 0x2'0041);
  apic(0).write_register(initial_count, 4'000'000);
  for (int i = 0; i < 5; ++i) {
    clock_.advance(4'000'000);
    EXPECT_EQ(apic(0).acknowledge(), 0x41) << i;
    apic(0).write_register(eoi, 0);
    EXPECT_FALSE(apic(0).pending());
  }
  clock_.advance(1'000'000);
  EXPECT_EQ(apic(0).read_register(current_count), 3'000'000u);
  // A hostile period does not become a storm of handlers, and still interrupts.
  apic(0).write_register(initial_count, 1);
  const unsigned calls = sinks_[0].calls;
  for (int i = 0; i < 1000; ++i) {
    clock_.advance(1'000);
    if (apic(0).acknowledge()) apic(0).write_register(eoi, 0);
  }
  EXPECT_GT(sinks_[0].calls, calls);
  EXPECT_LT(sinks_[0].calls, calls + 100);
}

TEST_F(LocalApicTest, TscDeadline) {
  enable_all();
  EXPECT_TRUE(apic(0).write_msr(tsc_deadline_msr, clock_.tsc() + 1000));
  EXPECT_EQ(apic(0).read_msr(tsc_deadline_msr), 0u) << "ignored in the other modes";
  apic(0).write_register(lvt_timer, 0x4'00ec);
  apic(0).write_register(initial_count, 5);
  EXPECT_EQ(apic(0).read_register(initial_count), 0u);
  const uint64_t deadline = clock_.tsc() + 1000;
  EXPECT_TRUE(apic(0).write_msr(tsc_deadline_msr, deadline));
  EXPECT_EQ(apic(0).read_msr(tsc_deadline_msr), deadline);
  clock_.advance(999);
  EXPECT_FALSE(apic(0).pending());
  clock_.advance(1);
  EXPECT_EQ(apic(0).acknowledge(), 0xec);
  apic(0).write_register(eoi, 0);
  EXPECT_EQ(apic(0).read_msr(tsc_deadline_msr), 0u);
  // In the past: at once.
  EXPECT_TRUE(apic(0).write_msr(tsc_deadline_msr, 1));
  EXPECT_EQ(apic(0).acknowledge(), 0xec);
  apic(0).write_register(eoi, 0);
  // Moved away again and again: only the last one counts.
  for (uint64_t i = 1; i <= 100; ++i) {
    EXPECT_TRUE(apic(0).write_msr(tsc_deadline_msr, clock_.tsc() + 1000));
    clock_.advance(500);
  }
  EXPECT_FALSE(apic(0).pending());
  clock_.advance(500);
  EXPECT_EQ(apic(0).acknowledge(), 0xec);
  apic(0).write_register(eoi, 0);
  // 0 disarms; so does leaving the mode; a deadline at the end of time overflows nothing.
  EXPECT_TRUE(apic(0).write_msr(tsc_deadline_msr, clock_.tsc() + 1000));
  EXPECT_TRUE(apic(0).write_msr(tsc_deadline_msr, 0));
  EXPECT_TRUE(apic(0).write_msr(tsc_deadline_msr, ~uint64_t{0}));
  clock_.advance(1'000'000'000);
  apic(0).write_register(lvt_timer, 0xec);
  EXPECT_EQ(apic(0).read_msr(tsc_deadline_msr), 0u);
  clock_.advance(1'000'000'000);
  EXPECT_FALSE(apic(0).pending());
}

TEST_F(LocalApicTest, ApicBaseTransitions) {
  LocalApic& a = apic(1);
  EXPECT_FALSE(a.write_msr(apic_base_msr, base_enabled | 1));
  EXPECT_FALSE(a.write_msr(apic_base_msr, base_enabled | uint64_t{1} << 40));
  EXPECT_FALSE(a.write_msr(apic_base_msr, 0xfee0'0400)) << "EXTD without EN";
  EXPECT_FALSE(a.read_msr(0x802).has_value()) << "no x2APIC MSRs in xAPIC mode";
  ASSERT_TRUE(a.write_msr(apic_base_msr, base_x2apic));
  EXPECT_EQ(a.read_register(id), 0xffff'ffffu) << "no page in x2APIC mode";
  EXPECT_FALSE(a.write_msr(apic_base_msr, base_enabled)) << "x2APIC to xAPIC";
  ASSERT_TRUE(a.write_msr(apic_base_msr, 0xfee0'0000));
  EXPECT_FALSE(a.write_msr(apic_base_msr, base_x2apic)) << "disabled to x2APIC";
  EXPECT_FALSE(bus_.deliver({.destination = 1, .mode = DeliveryMode::Nmi}));
  ASSERT_TRUE(a.write_msr(apic_base_msr, base_enabled));
  EXPECT_EQ(a.read_register(svr), 0xffu);
  ASSERT_TRUE(a.write_msr(apic_base_msr, base_x2apic));
}

TEST_F(LocalApicTest, X2apicRegistersAndFaults) {
  x2apic_all();
  LocalApic& a = apic(18);
  EXPECT_EQ(a.read_msr(0x802), 18u);
  EXPECT_EQ(a.read_msr(0x803), 0x0005'0014u);
  EXPECT_EQ(a.read_msr(0x80d), 1u << 16 | 1u << 2);
  for (const uint32_t missing : {0x800u, 0x809u, 0x80cu, 0x80eu, 0x82fu, 0x831u, 0x83fu, 0x80bu, 0x8ffu}) {
    EXPECT_EQ(a.read_msr(missing), std::nullopt) << std::hex << missing;
  }
  EXPECT_FALSE(a.write_msr(0x802, 1));
  EXPECT_FALSE(a.write_msr(0x80d, 1));
  EXPECT_FALSE(a.write_msr(0x810, 1));
  EXPECT_FALSE(a.write_msr(0x839, 1));
  EXPECT_FALSE(a.write_msr(0x80b, 1)) << "only 0 to EOI";
  EXPECT_FALSE(a.write_msr(0x828, 1)) << "only 0 to ESR";
  EXPECT_FALSE(a.write_msr(0x808, 0x100));
  EXPECT_FALSE(a.write_msr(0x808, uint64_t{1} << 32));
  EXPECT_FALSE(a.write_msr(0x80f, 0x8000));
  EXPECT_FALSE(a.write_msr(0x832, 0x8'0000));
  EXPECT_FALSE(a.write_msr(0x83f, 0x100));
  EXPECT_FALSE(a.write_msr(0x830, 1u << 20));
  EXPECT_TRUE(a.write_msr(0x83f, 0x77));
  EXPECT_EQ(a.acknowledge(), 0x77);
  EXPECT_TRUE(a.write_msr(0x80b, 0));
  EXPECT_TRUE(a.write_msr(0x808, 0x50));
  EXPECT_EQ(a.read_msr(0x80a), 0x50u);
}

TEST_F(LocalApicTest, X2apicDestinations) {
  x2apic_all();
  EXPECT_TRUE(apic(0).write_msr(0x830, uint64_t{17} << 32 | 0x40));
  EXPECT_EQ(having(0x40), Cpus{17});
  EXPECT_TRUE(apic(0).write_msr(0x830, uint64_t{0x0001'0003} << 32 | 0x841));  // logical, cluster 1
  EXPECT_EQ(having(0x41), (Cpus{16, 17}));
  EXPECT_TRUE(apic(0).write_msr(0x830, uint64_t{0xffff'ffff} << 32 | 0x42));
  EXPECT_EQ(having(0x42).size(), cpus);
  EXPECT_TRUE(apic(0).write_msr(0x830, uint64_t{0xff} << 32 | 0x43));
  EXPECT_TRUE(having(0x43).empty()) << "0xff is no broadcast in 32-bit destinations";
  EXPECT_EQ(apic(0).read_msr(0x830), uint64_t{0xff} << 32 | 0x43);
}

TEST_F(LocalApicTest, VirtualWire) {
  pic_.vector = 0x08;
  bus_.ext_int_line().set(true);
  EXPECT_TRUE(apic(0).pending()) << "although the APIC is software-disabled";
  EXPECT_FALSE(apic(1).pending());
  EXPECT_EQ(sinks_[0].calls, 1u);
  EXPECT_EQ(apic(0).acknowledge(), 0x08);
  apic(0).write_register(svr, 0x1ff);
  apic(0).write_register(lvt_lint0, 0x1'0700);
  EXPECT_FALSE(apic(0).interrupt_ready());
  const unsigned calls = sinks_[0].calls;
  apic(0).write_register(lvt_lint0, 0x700);
  EXPECT_GT(sinks_[0].calls, calls);
  EXPECT_TRUE(apic(0).interrupt_ready());
  pic_.vector.reset();
  EXPECT_EQ(apic(0).acknowledge(), std::nullopt);
  bus_.ext_int_line().set(false);
  // Fixed and NMI modes work by edges.
  apic(0).write_register(lvt_lint0, 0x31);
  bus_.ext_int_line().set(true);
  EXPECT_EQ(apic(0).acknowledge(), 0x31);
  bus_.ext_int_line().set(false);
  apic(0).write_register(lvt_lint0, 0x400);
  bus_.ext_int_line().set(true);
  EXPECT_TRUE(apic(0).take_event(true));
  // With the APIC off, LINT0 is INTR.
  ASSERT_TRUE(apic(0).write_msr(apic_base_msr, 0xfee0'0100));
  EXPECT_TRUE(apic(0).pending());
}

TEST_F(LocalApicTest, RoundTrip) {
  enable_all();
  bus_.deliver({.destination = 2, .vector = 0x55, .level = true});
  (void)apic(2).acknowledge();
  test_support::expect_round_trip<LocalApic>(apic(2), [](LocalApic::State& s) {
    s.apic_base = base_x2apic;
    s.ldr = 0x0100'0000;
    s.dfr = 0x0fff'ffff;
    s.irr[0] = 0x1'0000;
    s.isr[0] = 0x2'0000;
  });
}

TEST_F(LocalApicTest, RestoreRefusesImpossibleState) {
  const auto refuse = [&](auto&& damage) {
    LocalApic::State state{};
    ASSERT_TRUE(fields::restore(state, test_support::saved(apic(0))).has_value());
    damage(state);
    fields::Buffer bytes;
    fields::save(state, bytes);
    EXPECT_FALSE(apic(0).restore(bytes).has_value());
  };
  refuse([](auto& s) { s.apic_base = 0xfee0'0400; });
  refuse([](auto& s) { s.irr[0] = 1; });
  refuse([](auto& s) { s.tpr = 0x100; });
  refuse([](auto& s) { s.lvt[0] = ~0u; });
  refuse([](auto& s) { s.events = 0x80; });
}

// A restored timer goes on.
TEST_F(LocalApicTest, RestoredDeadlineFires) {
  enable_all();
  apic(0).write_register(lvt_timer, 0x4'00ec);
  EXPECT_TRUE(apic(0).write_msr(tsc_deadline_msr, clock_.tsc() + 1000));
  const auto bytes = test_support::saved(apic(0));
  apic(0).reset();
  ASSERT_TRUE(apic(0).restore(bytes).has_value());
  clock_.advance(1000);
  EXPECT_EQ(apic(0).acknowledge(), 0xec);
}

// Nothing that several threads post is lost, while the CPU takes and ends interrupts.
TEST_F(LocalApicTest, ThreadsPostWhileTheCpuTakes) {
  enable_all();
  constexpr unsigned senders = 3;
  constexpr unsigned vectors_each = 64;
  std::atomic<unsigned> finished{0};
  std::vector<std::thread> threads;
  for (unsigned s = 0; s < senders; ++s) {
    threads.emplace_back([&, s] {
      for (unsigned i = 0; i < vectors_each; ++i) {
        bus_.deliver(
            {.destination = 0, .vector = static_cast<uint8_t>(0x20 + s * vectors_each + i), .level = i % 2 == 0});
      }
      ++finished;
    });
  }
  std::array<unsigned, 256> taken{};
  for (;;) {
    const bool all_sent = finished == senders;
    while (const auto vector = apic(0).acknowledge()) {
      ++taken[*vector];
      apic(0).write_register(eoi, 0);
    }
    if (all_sent) break;
  }
  for (auto& thread : threads) thread.join();
  for (unsigned v = 0x20; v < 0x20 + senders * vectors_each; ++v) EXPECT_EQ(taken[v], 1u) << v;
}

}  // namespace
}  // namespace caisson
