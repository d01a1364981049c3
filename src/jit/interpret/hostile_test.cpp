// A hostile guest: random code with random state at the highest privilege, in every mode. Nothing may crash, hang or
// touch host memory; what the guest does to itself is its own affair.
#include <random>

#include "jit/interpret/test_machine.h"

namespace caisson::jit::test {
namespace {

using namespace x86;

TEST(HostileGuest, RandomSupervisorCode) {
  Machine machine(uint64_t{16} << 20);
  Cpu& cpu = machine.cpu();
  std::mt19937_64 random(4711);
  const auto pick = [&](uint64_t below) { return random() % below; };
  for (unsigned round = 0; round < 3000; ++round) {
    reset_cpu(cpu, false);
    machine.long_mode(pick(4) == 0);
    const unsigned mode = static_cast<unsigned>(pick(4));
    if (mode == 1) {  // compatibility mode
      cpu.segments[Cs].attributes = (cpu.segments[Cs].attributes & ~0x6000u) | static_cast<uint32_t>(pick(2) << 14);
    } else if (mode >= 2) {  // protected or real mode without paging
      cpu.cr0 &= ~(cr0::pg | (mode == 3 ? cr0::pe : 0));
      cpu.efer = 0;
      cpu.segments[Cs].attributes = (cpu.segments[Cs].attributes & ~0x6000u) | static_cast<uint32_t>(pick(2) << 14);
      if (pick(4) == 0 && mode == 2) cpu.rflags |= rflags::vm;
    }
    for (uint64_t& reg : cpu.gpr) reg = pick(3) ? pick(uint64_t{16} << 20) : random();
    if (pick(8) == 0) cpu.rflags |= random() & (rflags::tf | rflags::df | rflags::ac | rflags::nt | rflags::iopl);
    if (pick(8) == 0) cpu.dr[7] = 0x400 | (random() & 0xffff'03ff);
    for (unsigned i = 0; i < 4; ++i) cpu.dr[i] = random();
    // Tables that make no sense, now and then.
    for (unsigned i = 0; i < pick(8); ++i) machine.put<uint64_t>(0x1000 + pick(0x10000), random());
    std::vector<uint8_t> code(4096);
    for (uint8_t& byte : code) byte = static_cast<uint8_t>(random());
    constexpr std::array<uint8_t, 6> openings = {0x0f, 0x66, 0xc4, 0x62, 0xf3, 0x48};
    for (unsigned i = 0; i < 64; ++i) code[pick(code.size())] = openings[pick(openings.size())];
    ASSERT_TRUE(machine.memory().write(Machine::code, code));
    cpu.rip = Machine::code;
    cpu.segments[Cs].base = 0;
    update_mode(cpu);
    mmu::flush_all(cpu);
    for (unsigned i = 0; i < 60; ++i) {
      if (step(cpu) != StepResult::Done) break;
      ASSERT_FALSE(cpu.fault.raised);
      ASSERT_FALSE(cpu.fpu_live);
      if (pick(4) == 0) {
        cpu.rip = Machine::code + pick(4096);
        if (pick(16) == 0 && deliver_interrupt(cpu, static_cast<uint8_t>(random())) != StepResult::Done) break;
      }
    }
  }
}

}  // namespace
}  // namespace caisson::jit::test
