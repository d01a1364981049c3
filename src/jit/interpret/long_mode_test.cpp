// System behaviour in 64-bit mode: exceptions, interrupts, system calls, control registers, MSRs, debugging, port I/O.
#include <cstring>

#include "jit/interpret/fpu_state.h"
#include "jit/interpret/pvclock.h"
#include "jit/interpret/test_machine.h"

namespace caisson::jit::test {
namespace {

using namespace x86;

class LongMode : public testing::Test {
 protected:
  Machine machine{uint64_t{64} << 20};
  Cpu& cpu = machine.cpu();

  // Puts code at Machine::code and runs one instruction of it.
  void run(std::initializer_list<uint8_t> bytes) {
    machine.put_code(Machine::code, bytes);
    cpu.rip = Machine::code;
    EXPECT_EQ(step(cpu), StepResult::Done);
  }
  void expect_fault(unsigned vector, uint64_t error = 0) {
    ASSERT_TRUE(machine.taken().has_value()) << "RIP " << cpu.rip;
    EXPECT_EQ(*machine.taken(), vector);
    const auto frame = machine.frame();
    EXPECT_EQ(frame.error, error);
    EXPECT_EQ(frame.rip, Machine::code);
    EXPECT_TRUE(frame.rflags & rflags::rf);
  }
  // Page table entry of the 2 MiB page at `address`.
  void map_large(uint64_t address, uint64_t bits) {
    machine.put<uint64_t>(Machine::page_tables + 0x2000 + 8 * (address >> 21), bits ? (address >> 21 << 21) | bits : 0);
    mmu::flush_all(cpu);
  }
};

TEST_F(LongMode, PageFaultOfUserCode) {
  machine.long_mode(true);
  map_large(0x200000, 0);
  cpu.gpr[Rbx] = 0x200123;
  const auto before = cpu.gpr;
  run({0x48, 0x89, 0x03});  // mov [rbx], rax
  expect_fault(Pf, 6);
  EXPECT_EQ(cpu.cr2, 0x200123u);
  const auto frame = machine.frame();
  EXPECT_EQ(frame.cs, Machine::user_code | 3u);
  EXPECT_EQ(frame.ss, Machine::user_data | 3u);
  EXPECT_EQ(frame.rsp, before[Rsp]);
  EXPECT_EQ(cpu.gpr[Rsp], Machine::kernel_stack - 48);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_FALSE(cpu.rflags & rflags::interrupt);
  EXPECT_EQ(cpu.segments[Ss].selector, 0);
}

TEST_F(LongMode, ReadModifyWriteFaultsAsWrite) {
  machine.long_mode(true);
  map_large(0x200000, 0x85);  // present, user, read-only
  cpu.gpr[Rbx] = 0x200100;
  run({0x48, 0x01, 0x03});  // add [rbx], rax
  expect_fault(Pf, 7);
}

TEST_F(LongMode, InstructionAcrossAMissingPage) {
  machine.long_mode(true);
  map_large(0x200000, 0);
  machine.put_code(0x1ffffe, {0x48, 0xb8});  // mov rax, imm64
  cpu.rip = 0x1ffffe;
  EXPECT_EQ(step(cpu), StepResult::Done);
  ASSERT_EQ(machine.taken(), unsigned{Pf});
  EXPECT_EQ(machine.frame().error, 0x14u);
  EXPECT_EQ(machine.frame().rip, 0x1ffffeu);
  EXPECT_EQ(cpu.cr2, 0x200000u);
}

TEST_F(LongMode, PrivilegedInstructionUsesInterruptStack) {
  machine.long_mode(true);
  machine.set_gate(Gp, 0, 1);
  run({0xf4});
  expect_fault(Gp);
  EXPECT_EQ(cpu.gpr[Rsp], Machine::ist_stack - 48);
}

TEST_F(LongMode, GatePrivilegeOfSoftwareInterrupts) {
  machine.long_mode(true);
  machine.set_gate(0x20, 0, 0);
  run({0xcd, 0x20});
  expect_fault(Gp, 0x20 * 8 + 2);

  machine.long_mode(true);
  run({0xcd, 0x80});
  EXPECT_EQ(machine.taken(), 0x80u);
  EXPECT_EQ(machine.frame().rip, Machine::code + 2);
  EXPECT_FALSE(machine.frame().rflags & rflags::rf);
}

TEST_F(LongMode, DoubleAndTripleFault) {
  machine.long_mode(true);
  map_large(0x200000, 0);
  machine.put<uint64_t>(Machine::idt + Pf * 16, 0);  // #GP while delivering a #PF: #DF
  cpu.gpr[Rbx] = 0x200000;
  run({0x8b, 0x03});
  ASSERT_EQ(machine.taken(), unsigned{Df});
  EXPECT_EQ(machine.frame().error, 0u);

  machine.long_mode(true);
  map_large(0x200000, 0);
  machine.put<uint64_t>(Machine::idt + Pf * 16, 0);
  machine.put<uint64_t>(Machine::idt + Df * 16, 0);
  cpu.gpr[Rbx] = 0x200000;
  machine.put_code(Machine::code, {0x8b, 0x03});
  cpu.rip = Machine::code;
  EXPECT_EQ(step(cpu), StepResult::Shutdown);
}

TEST_F(LongMode, NotPresentGateOfABenignExceptionIsSerial) {
  machine.long_mode(true);
  machine.put<uint64_t>(Machine::idt + Ud * 16, machine.get<uint64_t>(Machine::idt + Ud * 16) & ~(uint64_t{1} << 47));
  run({0x0f, 0x0b});
  expect_fault(Np, Ud * 8 + 2 + 1);
}

TEST_F(LongMode, ExternalInterruptAlignsTheStack) {
  machine.long_mode(false);
  cpu.gpr[Rsp] = 0x30007;
  ASSERT_EQ(deliver_interrupt(cpu, 0x33), StepResult::Done);
  EXPECT_EQ(machine.taken(), 0x33u);
  EXPECT_EQ(cpu.gpr[Rsp], 0x30000u - 40);
  EXPECT_EQ(machine.frame().rsp, 0x30007u);
  EXPECT_EQ(machine.frame().ss, Machine::kernel_data);

  cpu.rip = Machine::code;
  ASSERT_EQ(deliver_interrupt(cpu, Nmi), StepResult::Done);
  EXPECT_TRUE(cpu.nmi_blocked);
  run({0x48, 0xcf});  // iretq
  EXPECT_FALSE(cpu.nmi_blocked);
}

TEST_F(LongMode, IretToUserAndToNonCanonical) {
  machine.long_mode(false);
  cpu.gpr[Rsp] = 0x30000;
  const std::array<uint64_t, 5> frame = {0x25000, Machine::user_code | 3u, 0x3202, 0x40008, Machine::user_data | 3u};
  machine.put(0x30000, frame);
  run({0x48, 0xcf});
  EXPECT_EQ(cpu.rip, 0x25000u);
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.gpr[Rsp], 0x40008u);
  EXPECT_EQ(cpu.rflags, 0x3202u);
  EXPECT_EQ(cpu.code_bits, 64);

  machine.long_mode(false);
  cpu.gpr[Rsp] = 0x30000;
  machine.put<uint64_t>(0x30000, 0x8000'0000'0000);
  run({0x48, 0xcf});
  expect_fault(Gp);
  EXPECT_EQ(machine.frame().cs, Machine::kernel_code);
}

TEST_F(LongMode, SystemCallAndBack) {
  machine.long_mode(true);
  cpu.msr(MsrSlot::Star) = uint64_t{0x13} << 48 | uint64_t{Machine::kernel_code} << 32;
  cpu.msr(MsrSlot::Lstar) = 0x26000;
  cpu.msr(MsrSlot::Sfmask) = rflags::interrupt | rflags::tf | rflags::df;
  cpu.rflags |= rflags::df;
  run({0x0f, 0x05});
  EXPECT_EQ(cpu.rip, 0x26000u);
  EXPECT_EQ(cpu.gpr[Rcx], Machine::code + 2);
  EXPECT_EQ(cpu.gpr[R11], 0x602u);
  EXPECT_EQ(cpu.rflags, 2u);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.segments[Ss].selector, Machine::kernel_data);

  machine.put_code(0x26000, {0x48, 0x0f, 0x07});  // sysretq
  EXPECT_EQ(step(cpu), StepResult::Done);
  EXPECT_EQ(cpu.rip, Machine::code + 2);
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.rflags, 0x602u);
  EXPECT_EQ(cpu.segments[Cs].selector, 0x23);
  EXPECT_EQ(cpu.segments[Ss].selector, 0x1b);

  cpu.efer &= ~efer::sce;
  run({0x0f, 0x05});
  EXPECT_EQ(machine.taken(), unsigned{Ud});
}

TEST_F(LongMode, SysenterAndSysexit) {
  machine.long_mode(true);
  cpu.msr(MsrSlot::SysenterCs) = Machine::kernel_code;
  cpu.msr(MsrSlot::SysenterEsp) = 0x31000;
  cpu.msr(MsrSlot::SysenterEip) = 0x26000;
  run({0x0f, 0x34});
  EXPECT_EQ(cpu.rip, 0x26000u);
  EXPECT_EQ(cpu.gpr[Rsp], 0x31000u);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_FALSE(cpu.rflags & rflags::interrupt);
  cpu.gpr[Rdx] = 0x27000;
  cpu.gpr[Rcx] = 0x32000;
  run({0x48, 0x0f, 0x35});  // sysexit, 64-bit
  EXPECT_EQ(cpu.rip, 0x27000u);
  EXPECT_EQ(cpu.gpr[Rsp], 0x32000u);
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.code_bits, 64);
}

TEST_F(LongMode, SegmentBases) {
  machine.long_mode(false);
  cpu.segments[Gs].base = 0x1111;
  cpu.msr(MsrSlot::KernelGsBase) = 0x2222;
  run({0x0f, 0x01, 0xf8});  // swapgs
  EXPECT_EQ(cpu.segments[Gs].base, 0x2222u);
  EXPECT_EQ(cpu.msr(MsrSlot::KernelGsBase), 0x1111u);
  run({0xf3, 0x48, 0x0f, 0xae, 0xc0});  // rdfsbase rax without CR4.FSGSBASE
  expect_fault(Ud);
  machine.long_mode(false);
  cpu.cr4 |= cr4::fsgsbase;
  cpu.gpr[Rax] = 0x8000'0000'0000;
  run({0xf3, 0x48, 0x0f, 0xae, 0xd0});  // wrfsbase rax, not canonical
  expect_fault(Gp);
}

TEST_F(LongMode, ModelSpecificRegisters) {
  machine.long_mode(false);
  cpu.gpr[Rcx] = msr::lstar;
  cpu.gpr[Rax] = 0x1234'5678;
  cpu.gpr[Rdx] = 0xffff'8000;
  run({0x0f, 0x30});
  EXPECT_EQ(cpu.msr(MsrSlot::Lstar), 0xffff'8000'1234'5678u);
  cpu.gpr[Rdx] = 0x8000;
  run({0x0f, 0x30});
  expect_fault(Gp);

  machine.long_mode(false);
  cpu.gpr[Rcx] = 0x12345;
  run({0x0f, 0x32});
  expect_fault(Gp);

  machine.long_mode(false);
  cpu.gpr[Rcx] = msr::efer;
  cpu.gpr[Rax] = static_cast<uint32_t>(cpu.efer ^ efer::lme);  // LME while paging
  cpu.gpr[Rdx] = 0;
  run({0x0f, 0x30});
  expect_fault(Gp);

  machine.long_mode(false);
  cpu.gpr[Rcx] = msr::pat;
  cpu.gpr[Rax] = 2;  // reserved type
  cpu.gpr[Rdx] = 0;
  run({0x0f, 0x30});
  expect_fault(Gp);
}

TEST_F(LongMode, TimeStampCounterWritesAdjust) {
  machine.long_mode(false);
  cpu.gpr[Rcx] = msr::tsc;
  cpu.gpr[Rax] = 1000;
  cpu.gpr[Rdx] = 0;
  run({0x0f, 0x30});
  machine.clock.advance(5);
  run({0x0f, 0x31});
  EXPECT_EQ(cpu.gpr[Rax], 1005u);
  EXPECT_EQ(cpu.msr(MsrSlot::TscAdjust), 1000 - uint64_t{1'000'000'000});
}

TEST_F(LongMode, KvmClock) {
  machine.long_mode(false);
  cpu.gpr[Rcx] = msr::kvm_system_time_new;
  cpu.gpr[Rax] = 0x50001;
  cpu.gpr[Rdx] = 0;
  run({0x0f, 0x30});
  EXPECT_EQ(machine.get<uint32_t>(0x50000) & 1, 0u);
  EXPECT_NE(machine.get<uint32_t>(0x50000), 0u);
  EXPECT_EQ(machine.get<uint64_t>(0x50008), machine.clock.tsc());
  EXPECT_EQ(machine.get<uint64_t>(0x50010), machine.clock.now_ns());
  const uint64_t multiplier = machine.get<uint32_t>(0x50018);
  const int shift = machine.get<int8_t>(0x5001c);
  // A million ticks of the 1 GHz clock are a million nanoseconds.
  const uint64_t ticks = shift < 0 ? 1'000'000u >> -shift : 1'000'000u << shift;
  EXPECT_NEAR(static_cast<double>(ticks * multiplier >> 32), 1e6, 2);
  EXPECT_EQ(machine.get<uint8_t>(0x5001d), 1);

  cpu.gpr[Rcx] = msr::kvm_wall_clock_new;
  cpu.gpr[Rax] = 0x50100;
  run({0x0f, 0x30});
  EXPECT_EQ(machine.get<uint32_t>(0x50104), (machine.clock.wall_ns() - machine.clock.now_ns()) / 1'000'000'000);
}

TEST_F(LongMode, ControlRegisterRules) {
  const auto fails = [&](std::initializer_list<uint8_t> code, uint64_t value) {
    machine.long_mode(false);
    cpu.gpr[Rax] = value;
    run(code);
    return machine.taken() == unsigned{Gp};
  };
  EXPECT_TRUE(fails({0x0f, 0x22, 0xc0}, cr0::pe | cr0::et));                      // PG off in 64-bit mode
  EXPECT_TRUE(fails({0x0f, 0x22, 0xc0}, cr0::pg | cr0::et));                      // PG without PE
  EXPECT_TRUE(fails({0x0f, 0x22, 0xc0}, cr0::pg | cr0::pe | cr0::nw));            // NW without CD
  EXPECT_TRUE(fails({0x0f, 0x22, 0xc0}, cr0::pg | cr0::pe | uint64_t{1} << 40));  // upper half
  EXPECT_TRUE(fails({0x0f, 0x22, 0xe0}, cr4::pge));                               // PAE off in long mode
  EXPECT_TRUE(fails({0x0f, 0x22, 0xe0}, cr4::pae | cr4::la57));                   // not offered
  EXPECT_TRUE(fails({0x0f, 0x22, 0xd8}, uint64_t{1} << 52));                      // CR3 beyond the physical width
  EXPECT_TRUE(fails({0x44, 0x0f, 0x22, 0xc0}, 16));                               // CR8
  EXPECT_FALSE(fails({0x44, 0x0f, 0x22, 0xc0}, 15));
  EXPECT_EQ(machine.interrupts.cr8(), 15);
  EXPECT_FALSE(fails({0x0f, 0x22, 0xe0}, cr4::pae | cr4::pcide | cr4::pge));
  cpu.cr4 &= ~cr4::pcide;
  machine.long_mode(false);
  cpu.cr3 |= 8;
  cpu.gpr[Rax] = cr4::pae | cr4::pcide;
  run({0x0f, 0x22, 0xe0});
  expect_fault(Gp);  // CR3[11:0] is not zero
}

TEST_F(LongMode, UserModeInstructionPrevention) {
  machine.long_mode(true);
  cpu.cr4 |= cr4::umip;
  cpu.gpr[Rbx] = 0x60000;
  run({0x0f, 0x01, 0x03});  // sgdt [rbx]
  expect_fault(Gp);
  machine.long_mode(true);
  run({0x0f, 0x01, 0x03});
  EXPECT_FALSE(machine.taken());
  EXPECT_EQ(machine.get<uint16_t>(0x60000), 0xff);
  EXPECT_EQ(machine.get<uint64_t>(0x60002), Machine::gdt);
}

TEST_F(LongMode, SupervisorModeAccessPrevention) {
  machine.long_mode(false);
  cpu.cr4 |= cr4::smap;
  update_mode(cpu);
  map_large(0, 0x83);  // code and tables: supervisor
  mmu::flush_all(cpu);
  cpu.gpr[Rbx] = 0x200000;
  run({0x8b, 0x03});
  expect_fault(Pf, 1);
  cpu.rip = Machine::code;
  run({0x0f, 0x01, 0xcb});  // stac
  run({0x8b, 0x03});
  EXPECT_EQ(cpu.rip, Machine::code + 2);
  run({0x0f, 0x01, 0xca});  // clac
  run({0x8b, 0x03});
  EXPECT_EQ(machine.taken(), unsigned{Pf});
}

TEST_F(LongMode, AlignmentCheck) {
  machine.long_mode(true);
  cpu.cr0 |= cr0::am;
  cpu.rflags |= rflags::ac;
  cpu.gpr[Rbx] = 0x60001;
  run({0x8b, 0x03});
  expect_fault(Ac);
  machine.long_mode(true);
  cpu.cr0 |= cr0::am;
  run({0x8b, 0x03});
  EXPECT_FALSE(machine.taken());
}

TEST_F(LongMode, SingleStep) {
  machine.long_mode(true);
  cpu.rflags |= rflags::tf;
  run({0x90});
  ASSERT_EQ(machine.taken(), unsigned{Db});
  EXPECT_EQ(machine.frame().rip, Machine::code + 1);
  EXPECT_TRUE(cpu.dr[6] & 1u << 14);
  EXPECT_FALSE(cpu.rflags & rflags::tf);
}

TEST_F(LongMode, Breakpoints) {
  machine.long_mode(true);
  cpu.dr[0] = Machine::code;
  cpu.dr[7] = 0x402;
  run({0x90});
  expect_fault(Db);
  EXPECT_EQ(cpu.dr[6] & 15, 1u);

  machine.long_mode(true);
  cpu.dr[7] = 0x402;
  cpu.rflags |= rflags::rf;
  run({0x90});
  EXPECT_EQ(cpu.rip, Machine::code + 1);
  EXPECT_FALSE(cpu.rflags & rflags::rf);

  machine.long_mode(true);
  cpu.dr[6] = 0xffff'0ff0;
  cpu.dr[1] = 0x60004;
  cpu.dr[7] = 0x400 | 8 | 0xd0'0000;  // write, 4 bytes
  cpu.gpr[Rbx] = 0x60006;
  run({0x66, 0x89, 0x03});  // mov [rbx], ax
  ASSERT_EQ(machine.taken(), unsigned{Db});
  EXPECT_EQ(machine.frame().rip, Machine::code + 3);
  EXPECT_EQ(cpu.dr[6] & 15, 2u);
}

TEST_F(LongMode, InterruptShadows) {
  machine.long_mode(false);
  cpu.rflags &= ~rflags::interrupt;
  run({0xfb});
  EXPECT_EQ(cpu.interrupt_shadow, 1);
  run({0xfb});  // IF was set already
  EXPECT_EQ(cpu.interrupt_shadow, 0);
  cpu.gpr[Rax] = Machine::kernel_data;
  run({0x8e, 0xd0});
  EXPECT_EQ(cpu.interrupt_shadow, 2);
  machine.put_code(Machine::code, {0xf4});
  cpu.rip = Machine::code;
  EXPECT_EQ(step(cpu), StepResult::Halted);
  EXPECT_EQ(cpu.activity, Activity::Halted);
  EXPECT_EQ(cpu.rip, Machine::code + 1);
}

TEST_F(LongMode, RepeatedMoveFaultsInTheMiddle) {
  machine.long_mode(true);
  map_large(0x400000, 0);
  cpu.gpr[Rsi] = 0x60000;
  cpu.gpr[Rdi] = 0x3ffff0;
  cpu.gpr[Rcx] = 100;
  for (uint64_t i = 0; i < 100; ++i) machine.put<uint8_t>(0x60000 + i, static_cast<uint8_t>(i + 1));
  run({0xf3, 0xa4});
  expect_fault(Pf, 6);
  EXPECT_EQ(cpu.cr2, 0x400000u);
  EXPECT_EQ(cpu.gpr[Rcx], 84u);
  EXPECT_EQ(cpu.gpr[Rsi], 0x60010u);
  EXPECT_EQ(cpu.gpr[Rdi], 0x400000u);
  EXPECT_EQ(machine.get<uint8_t>(0x3fffff), 16);
}

TEST_F(LongMode, LongFillsComeInSteps) {
  machine.long_mode(true);
  cpu.gpr[Rdi] = 0x60003;
  cpu.gpr[Rcx] = 3000;
  cpu.gpr[Rax] = 0x1122'3344'5566'7788;
  unsigned steps = 0;
  machine.put_code(Machine::code, {0xf3, 0x48, 0xab});
  cpu.rip = Machine::code;
  do {
    ASSERT_EQ(step(cpu), StepResult::Done);
    ++steps;
  } while (cpu.rip == Machine::code);
  EXPECT_EQ(steps, 6u);
  EXPECT_EQ(cpu.gpr[Rdi], 0x60003u + 24000);
  EXPECT_EQ(machine.get<uint64_t>(0x60003 + 23992), 0x1122'3344'5566'7788u);
  EXPECT_EQ(machine.get<uint8_t>(0x60003 + 24000), 0);
}

TEST_F(LongMode, OverlappingMovesRepeatThePattern) {
  machine.long_mode(true);
  machine.put<uint16_t>(0x60000, 0xbbaa);
  cpu.gpr[Rsi] = 0x60000;
  cpu.gpr[Rdi] = 0x60002;
  cpu.gpr[Rcx] = 200;
  run({0xf3, 0xa4});
  EXPECT_EQ(machine.get<uint16_t>(0x60000 + 200), 0xbbaa);
}

TEST_F(LongMode, PortsAndTheirPermissionMap) {
  machine.long_mode(true);
  machine.put<uint16_t>(Machine::tss + 0x66, 0x68);
  run({0xe4, 0x80});
  expect_fault(Gp);  // the map lies beyond the TSS's limit

  machine.long_mode(true);
  cpu.tr.limit = 0x68 + 0x2000;
  for (uint64_t i = 0; i < 0x2001; ++i) machine.put<uint8_t>(Machine::tss + 0x68 + i, i == 0x100 / 8 ? 0xfe : 0xff);
  machine.port.answers = {0x5a};
  cpu.gpr[Rdx] = 0x100;
  cpu.gpr[Rax] = 0xffff'ffff;
  run({0xec});  // in al, dx
  EXPECT_EQ(cpu.gpr[Rax], 0xffff'ff5au);
  run({0x66, 0xed});  // in ax, dx: the next port is denied
  expect_fault(Gp);

  machine.long_mode(true);
  cpu.rflags |= rflags::iopl;
  machine.port.answers = {1, 2, 3};
  cpu.gpr[Rdi] = 0x60000;
  cpu.gpr[Rcx] = 3;
  cpu.gpr[Rdx] = 0x110;
  run({0xf3, 0x6d});  // rep insd
  EXPECT_EQ(machine.get<uint32_t>(0x60008), 3u);
  EXPECT_EQ(cpu.gpr[Rcx], 0u);
  cpu.gpr[Rsi] = 0x60004;
  run({0x66, 0x6f});  // outsw
  ASSERT_EQ(machine.port.writes.size(), 1u);
  EXPECT_EQ(machine.port.writes[0].value, 2u);
  EXPECT_EQ(machine.port.writes[0].offset, 0x10u);
}

TEST_F(LongMode, UserFlagsKeepPrivilegedBits) {
  machine.long_mode(true);
  machine.put<uint64_t>(cpu.gpr[Rsp], 0x3000 | rflags::ac | rflags::cf);  // IOPL 3, IF off
  run({0x9d});
  EXPECT_EQ(cpu.rflags, rflags::fixed | rflags::interrupt | rflags::ac | rflags::cf);
  cpu.rflags |= rflags::rf;
  run({0x9c});
  EXPECT_EQ(machine.get<uint64_t>(cpu.gpr[Rsp]) & (rflags::rf | rflags::vm), 0u);
}

TEST_F(LongMode, ModifiedCodeIsDecodedAnew) {
  machine.long_mode(true);
  run({0xb0, 0x11});
  EXPECT_EQ(cpu.gpr[Rax] & 0xff, 0x11u);
  run({0xb0, 0x22});
  EXPECT_EQ(cpu.gpr[Rax] & 0xff, 0x22u);
  run({0xb4, 0x33});
  EXPECT_EQ(cpu.gpr[Rax] & 0xffff, 0x3322u);
}

TEST_F(LongMode, DescriptorLoads) {
  machine.long_mode(false);
  machine.put<uint64_t>(Machine::gdt + 0x40, Machine::segment_descriptor(0x1234, 0xfff, 0x92, 0x4));  // not accessed
  cpu.gpr[Rax] = 0x40;
  run({0x8e, 0xe0});  // mov fs, eax
  EXPECT_EQ(cpu.segments[Fs].base, 0x1234u);
  EXPECT_EQ(machine.get<uint8_t>(Machine::gdt + 0x45), 0x93);
  cpu.gpr[Rax] = 0x48;
  machine.put<uint64_t>(Machine::gdt + 0x48, Machine::segment_descriptor(0, 0xfff, 0x12, 0x4));  // not present
  run({0x8e, 0xe0});
  expect_fault(Np, 0x48);
  machine.long_mode(false);
  cpu.gpr[Rax] = 0x200;  // beyond the limit
  run({0x8e, 0xe0});
  expect_fault(Gp, 0x200);
  machine.long_mode(false);
  cpu.gpr[Rax] = 0;
  run({0x8e, 0xe0});
  EXPECT_TRUE(cpu.segments[Fs].unusable());
  EXPECT_EQ(cpu.segments[Fs].base, 0u);
}

TEST_F(LongMode, ExtendedStateSavesAndRestores) {
  if (!machine.model().has(Feature::Xsavec)) GTEST_SKIP() << "the host has no XSAVEC";
  machine.long_mode(true);
  VectorBytes value;
  for (unsigned i = 0; i < 64; ++i) value[i] = static_cast<uint8_t>(i + 1);
  write_vector(cpu, 3, value, 32);
  cpu.gpr[Rbx] = 0x60000;
  cpu.gpr[Rax] = 7;
  cpu.gpr[Rdx] = 0;
  run({0x0f, 0xc7, 0x23});  // xsavec [rbx]
  ASSERT_FALSE(machine.taken());
  EXPECT_EQ(machine.get<uint64_t>(0x60208), uint64_t{1} << 63 | 7);
  EXPECT_EQ(machine.get<uint64_t>(0x60200) & 6, 6u);
  EXPECT_EQ(machine.get<uint8_t>(0x60000 + 576 + 48), 17);  // upper half of YMM3
  write_vector(cpu, 3, {}, 64);
  run({0x0f, 0xae, 0x2b});  // xrstor [rbx]
  ASSERT_FALSE(machine.taken());
  EXPECT_TRUE(std::equal(value.begin(), value.begin() + 32, read_vector(cpu, 3).begin()));

  machine.put<uint64_t>(0x60208, uint64_t{1} << 63 | uint64_t{1} << 40);
  run({0x0f, 0xae, 0x2b});
  expect_fault(Gp);
  machine.long_mode(true);
  cpu.gpr[Rbx] = 0x60008;
  run({0x0f, 0xae, 0x23});  // xsave, misaligned
  expect_fault(Gp);
  machine.long_mode(true);
  cpu.cr0 |= cr0::ts;
  cpu.gpr[Rbx] = 0x60000;
  run({0x0f, 0xae, 0x23});
  expect_fault(Nm);
  machine.long_mode(true);
  cpu.cr0 |= cr0::ts;
  run({0x0f, 0x57, 0xc0});  // xorps
  expect_fault(Nm);
  machine.long_mode(true);
  cpu.cr4 &= ~cr4::osxsave;
  run({0xc5, 0xf8, 0x57, 0xc0});  // vxorps
  expect_fault(Ud);
}

// The count of a REP with 32-bit addresses is written back as 32 bits, also where it was 0 at once.
TEST_F(LongMode, RepeatCountOfZeroClearsItsUpperHalf) {
  machine.long_mode(false);
  cpu.gpr[Rcx] = 0x1234'0000'0000;
  run({0x67, 0xf3, 0xaa});  // rep stosb with ECX
  EXPECT_EQ(cpu.gpr[Rcx], 0u);
  EXPECT_EQ(cpu.rip, Machine::code + 3);
}

// No #GP for a misaligned operand that a mask of zeros keeps from being accessed.
TEST_F(LongMode, MaskedAlignedMoveOfNothing) {
  if (!machine.model().has(Feature::Avx512vl)) GTEST_SKIP() << "the host has no AVX-512";
  machine.long_mode(false);
  fpu_init(cpu);
  cpu.gpr[Rdx] = 0x5'0001;
  run({0x62, 0xf1, 0xfd, 0x0c, 0x28, 0x1a});  // vmovapd xmm3 {k4}, [rdx]
  EXPECT_FALSE(machine.taken().has_value());
  component(cpu, 5)[8 * 4] = 1;
  cpu.xsave[512] |= xstate::opmask;
  run({0x62, 0xf1, 0xfd, 0x0c, 0x28, 0x1a});
  expect_fault(Gp);
}

// A mask does not keep VDBPSADBW from accessing all of its operand (exception class E4NF.nb).
TEST_F(LongMode, MaskedBlockSumsFaultAllTheSame) {
  if (!machine.model().has(Feature::Avx512bw)) GTEST_SKIP() << "the host has no AVX-512";
  machine.long_mode(false);
  map_large(0x40'0000, 0);
  fpu_init(cpu);
  cpu.gpr[Rsi] = 0x40'0000;
  run({0x62, 0xf3, 0x35, 0xcf, 0x42, 0x36, 0x56});  // vdbpsadbw zmm6 {k7} {z}, zmm9, [rsi], 56h
  expect_fault(Pf);
}

TEST_F(LongMode, FxrstorSettlesControlAndStatusWords) {
  machine.long_mode(false);
  fpu_init(cpu);
  cpu.gpr[Rsi] = 0x5'0000;
  machine.put<uint32_t>(0x5'0000, 0xffff'0000);  // all exceptions unmasked and pending
  machine.put<uint32_t>(0x5'0018, 0x1f80);
  run({0x0f, 0xae, 0x0e});  // fxrstor [rsi]
  cpu.gpr[Rsi] = 0x5'1000;
  run({0x0f, 0xae, 0x06});  // fxsave [rsi]
  EXPECT_EQ(machine.get<uint32_t>(0x5'1000), 0xffff'0040u);
  machine.put<uint32_t>(0x5'0000, 0xffff'e0bf);  // all masked: nothing is pending
  cpu.gpr[Rsi] = 0x5'0000;
  run({0x0f, 0xae, 0x0e});
  cpu.gpr[Rsi] = 0x5'1000;
  run({0x0f, 0xae, 0x06});
  EXPECT_EQ(machine.get<uint32_t>(0x5'1000), 0x7f7f'007fu);
}

TEST_F(LongMode, UnmaskedSimdExceptions) {
  machine.long_mode(true);
  const uint32_t mxcsr = 0x1f80 & ~0x200u;  // division by zero unmasked
  std::memcpy(cpu.xsave.data() + 24, &mxcsr, 4);
  VectorBytes one{};
  one[3] = 0x3f;
  one[2] = 0x80;
  write_vector(cpu, 0, one, 16);
  write_vector(cpu, 1, {}, 16);
  run({0xf3, 0x0f, 0x5e, 0xc1});  // divss xmm0, xmm1
  expect_fault(Xm);
  EXPECT_TRUE(guest_mxcsr(cpu) & 4);
  machine.long_mode(true);
  cpu.cr4 &= ~cr4::osxmmexcpt;
  run({0xf3, 0x0f, 0x5e, 0xc1});
  expect_fault(Ud);
}

}  // namespace
}  // namespace caisson::jit::test
