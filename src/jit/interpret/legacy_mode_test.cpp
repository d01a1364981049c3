// Real mode, 16- and 32-bit protected mode, VM86: start-up, interrupts, gates, task switches.
#include <cstring>

#include "jit/interpret/test_machine.h"

namespace caisson::jit::test {
namespace {

using namespace x86;

class LegacyMode : public testing::Test {
 protected:
  static constexpr uint64_t gdt = 0x8000, idt = 0x9000, tss = 0xa000, other_tss = 0xb000, code = 0x20000;
  static constexpr uint16_t code0 = 0x08, data0 = 0x10, code3 = 0x18, data3 = 0x20, tss_selector = 0x28, gate = 0x30,
                            other_selector = 0x38, task_gate = 0x40, code16 = 0x48;

  Machine machine{uint64_t{16} << 20};
  Cpu& cpu = machine.cpu();

  // 32-bit protected mode without paging.
  void protected_mode(unsigned cpl) {
    reset_cpu(cpu, false);
    machine.put<uint64_t>(gdt, 0);
    machine.put<uint64_t>(gdt + code0, Machine::segment_descriptor(0, 0xfffff, 0x9b, 0xc));
    machine.put<uint64_t>(gdt + data0, Machine::segment_descriptor(0, 0xfffff, 0x93, 0xc));
    machine.put<uint64_t>(gdt + code3, Machine::segment_descriptor(0, 0xfffff, 0xfb, 0xc));
    machine.put<uint64_t>(gdt + data3, Machine::segment_descriptor(0, 0xfffff, 0xf3, 0xc));
    machine.put<uint64_t>(gdt + tss_selector, Machine::segment_descriptor(tss, 0x67, 0x8b, 0));
    machine.put<uint64_t>(gdt + other_selector, Machine::segment_descriptor(other_tss, 0x67, 0x89, 0));
    machine.put<uint64_t>(gdt + task_gate, uint64_t{other_selector} << 16 | uint64_t{0xe5} << 40);
    machine.put<uint64_t>(gdt + code16, Machine::segment_descriptor(0x20000, 0xffff, 0x9b, 0));
    for (uint64_t vector = 0; vector < 256; ++vector) set_gate(vector, 0x8e, 3);
    machine.put<uint32_t>(tss + 4, 0x7000);
    machine.put<uint16_t>(tss + 8, data0);
    cpu.gdtr = {.base = gdt, .limit = 0x4f};
    cpu.idtr = {.base = idt, .limit = 0x7ff};
    cpu.tr = {.base = tss, .limit = 0x67, .attributes = 0x8b, .selector = tss_selector};
    cpu.ldtr = {.base = 0, .limit = 0, .attributes = 1u << 16, .selector = 0};
    cpu.cr0 = cr0::pe | cr0::et;
    cpu.rflags = 0x202;
    cpu.segments[Cs] = {.base = 0,
                        .limit = 0xffff'ffff,
                        .attributes = 0xc09b | cpl << 5,
                        .selector = static_cast<uint16_t>(cpl ? code3 | 3 : int{code0})};
    for (unsigned reg : {Es, Ss, Ds, Fs, Gs}) {
      cpu.segments[reg] = {.base = 0,
                           .limit = 0xffff'ffff,
                           .attributes = 0xc093 | cpl << 5,
                           .selector = static_cast<uint16_t>(cpl ? data3 | 3 : int{data0})};
    }
    cpu.gpr[Rsp] = 0x30000;
    cpu.rip = code;
    update_mode(cpu);
    mmu::flush_all(cpu);
  }

  void set_gate(uint64_t vector, uint8_t type, unsigned dpl) {
    const uint64_t target = Machine::handlers + vector * 16;
    machine.put<uint64_t>(idt + vector * 8, (target & 0xffff) | uint64_t{code0} << 16 |
                                                (uint64_t{type} | dpl << 5) << 40 | (target >> 16) << 48);
  }

  void run(std::initializer_list<uint8_t> bytes) {
    machine.put_code(code, bytes);
    cpu.rip = code - cpu.segments[Cs].base;
    EXPECT_EQ(step(cpu), StepResult::Done);
  }
  uint32_t pushed(unsigned index) { return machine.get<uint32_t>(cpu.segments[Ss].base + cpu.gpr[Rsp] + 4 * index); }
};

TEST_F(LegacyMode, FirstInstructionAfterReset) {
  reset_cpu(cpu, false);
  EXPECT_EQ(cpu.segments[Cs].base + cpu.rip, 0xffff'fff0u);
  EXPECT_EQ(cpu.code_bits, 16);
  EXPECT_EQ(cpu.cr0, 0x6000'0010u);
  EXPECT_EQ(cpu.rflags, 2u);
}

// A further CPU's way from its start-up interrupt to 64-bit mode.
TEST_F(LegacyMode, StartUpTrampoline) {
  machine.put_code(0x7000, {
                               0xfa,                                            // cli
                               0x8c, 0xc8, 0x8e, 0xd8,                          // mov ax, cs; mov ds, ax
                               0x0f, 0x01, 0x16, 0x00, 0x01,                    // lgdt [100h]
                               0x0f, 0x20, 0xc0, 0x66, 0x83, 0xc8, 0x01,        // mov eax, cr0; or eax, 1
                               0x0f, 0x22, 0xc0,                                // mov cr0, eax
                               0x66, 0xea, 0x1c, 0x70, 0x00, 0x00, 0x08, 0x00,  // jmp 8:701ch
                               0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xd0,  // mov ax, 10h; mov ds, ax; mov ss, ax
                               0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0,              // CR4.PAE
                               0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8,                    // CR3 = 1000h
                               0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32,                          // EFER.LME
                               0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30,                          //
                               0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0,  // CR0.PG
                               0xea, 0x55, 0x70, 0x00, 0x00, 0x18, 0x00,                          // jmp 18h:7055h
                               0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,        // mov rax, …
                               0xf4,
                           });
  machine.put<uint16_t>(0x7100, 0x1f);
  machine.put<uint32_t>(0x7102, 0x7200);
  machine.put<uint64_t>(0x7208, Machine::segment_descriptor(0, 0xfffff, 0x9b, 0xc));
  machine.put<uint64_t>(0x7210, Machine::segment_descriptor(0, 0xfffff, 0x93, 0xc));
  machine.put<uint64_t>(0x7218, Machine::segment_descriptor(0, 0xfffff, 0x9b, 0xa));
  machine.put<uint64_t>(0x1000, 0x2003);
  machine.put<uint64_t>(0x2000, 0x3003);
  machine.put<uint64_t>(0x3000, 0x83);
  reset_cpu(cpu, true);
  start_at_sipi(cpu, 7);
  EXPECT_EQ(cpu.segments[Cs].base, 0x7000u);
  StepResult result = StepResult::Done;
  for (unsigned i = 0; i < 100 && result == StepResult::Done; ++i) result = step(cpu);
  EXPECT_EQ(result, StepResult::Halted);
  EXPECT_EQ(cpu.gpr[Rax], 0x1122'3344'5566'7788u);
  EXPECT_EQ(cpu.code_bits, 64);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_TRUE(cpu.efer & efer::lma);
}

TEST_F(LegacyMode, RealModeInterruptAndReturn) {
  reset_cpu(cpu, false);
  cpu.segments[Cs] = {.base = 0x20000, .limit = 0xffff, .attributes = 0x9b, .selector = 0x2000};
  cpu.gpr[Rsp] = 0x1000;
  cpu.rflags |= rflags::interrupt;
  machine.put<uint32_t>(0x10 * 4, 0x3000'0100);
  run({0xcd, 0x10});
  EXPECT_EQ(cpu.segments[Cs].base + cpu.rip, 0x30100u);
  EXPECT_FALSE(cpu.rflags & rflags::interrupt);
  EXPECT_EQ(machine.get<uint16_t>(0xffa), 2);  // IP
  EXPECT_EQ(machine.get<uint16_t>(0xffc), 0x2000);
  EXPECT_EQ(machine.get<uint16_t>(0xffe), 0x202);
  machine.put_code(0x30100, {0xcf});
  EXPECT_EQ(step(cpu), StepResult::Done);
  EXPECT_EQ(cpu.segments[Cs].base + cpu.rip, 0x20002u);
  EXPECT_TRUE(cpu.rflags & rflags::interrupt);
  EXPECT_EQ(cpu.gpr[Rsp], 0x1000u);
}

TEST_F(LegacyMode, RealModeLimitsAndFaults) {
  reset_cpu(cpu, false);
  cpu.segments[Cs] = {.base = 0x20000, .limit = 0xffff, .attributes = 0x9b, .selector = 0x2000};
  cpu.gpr[Rsp] = 0x1000;
  machine.put<uint32_t>(Gp * 4, 0x3000'0200);
  run({0xa1, 0xff, 0xff});  // mov ax, [ffffh]: the word leaves the segment
  EXPECT_EQ(cpu.segments[Cs].base + cpu.rip, 0x30200u);
  EXPECT_EQ(machine.get<uint16_t>(0xffa), 0);
  EXPECT_EQ(cpu.gpr[Rsp], 0xffau);  // no error code
}

TEST_F(LegacyMode, RealModeFarCallAndReturn) {
  reset_cpu(cpu, false);
  cpu.segments[Cs] = {.base = 0x20000, .limit = 0xffff, .attributes = 0x9b, .selector = 0x2000};
  cpu.gpr[Rsp] = 0x1000;
  run({0x9a, 0x34, 0x12, 0x00, 0x30});
  EXPECT_EQ(cpu.segments[Cs].base + cpu.rip, 0x31234u);
  machine.put_code(0x31234, {0xca, 0x04, 0x00});  // retf 4
  EXPECT_EQ(step(cpu), StepResult::Done);
  EXPECT_EQ(cpu.segments[Cs].base + cpu.rip, 0x20005u);
  EXPECT_EQ(cpu.gpr[Rsp], 0x1004u);
}

TEST_F(LegacyMode, InterruptToInnerLevelAndBack) {
  protected_mode(3);
  run({0xcd, 0x80});
  ASSERT_EQ(machine.taken(), 0x80u);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.gpr[Rsp], 0x7000u - 20);
  EXPECT_EQ(pushed(0), code + 2);
  EXPECT_EQ(pushed(1), code3 | 3u);
  EXPECT_EQ(pushed(3), 0x30000u);
  EXPECT_EQ(pushed(4), data3 | 3u);
  machine.put_code(cpu.rip, {0xcf});
  EXPECT_EQ(step(cpu), StepResult::Done);
  EXPECT_EQ(cpu.rip, code + 2);
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.gpr[Rsp], 0x30000u);
}

TEST_F(LegacyMode, CallGateWithParameters) {
  protected_mode(3);
  machine.put<uint64_t>(gdt + gate, 0x5000 | uint64_t{code0} << 16 | uint64_t{2} << 32 | uint64_t{0xec} << 40);
  machine.put<uint32_t>(0x30000, 0x1111);
  machine.put<uint32_t>(0x30004, 0x2222);
  run({0x9a, 0, 0, 0, 0, 0x33, 0});
  EXPECT_EQ(cpu.rip, 0x5000u);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.gpr[Rsp], 0x7000u - 24);
  EXPECT_EQ(pushed(0), code + 7);
  EXPECT_EQ(pushed(1), code3 | 3u);
  EXPECT_EQ(pushed(2), 0x1111u);
  EXPECT_EQ(pushed(3), 0x2222u);
  EXPECT_EQ(pushed(4), 0x30000u);
  machine.put_code(0x5000, {0xca, 8, 0});  // retf 8
  EXPECT_EQ(step(cpu), StepResult::Done);
  EXPECT_EQ(cpu.rip, code + 7);
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.gpr[Rsp], 0x30008u);
}

TEST_F(LegacyMode, FaultsCarrySelectors) {
  protected_mode(3);
  run({0xea, 0, 0, 0, 0, 0x08, 0});  // jmp to ring 0 code
  ASSERT_EQ(machine.taken(), unsigned{Gp});
  EXPECT_EQ(pushed(0), 0x08u);
  EXPECT_EQ(pushed(1), code);

  protected_mode(0);
  cpu.segments[Ds].limit = 0xfff;
  run({0xa1, 0xfe, 0x0f, 0, 0});
  ASSERT_EQ(machine.taken(), unsigned{Gp});
  EXPECT_EQ(pushed(0), 0u);

  protected_mode(0);
  cpu.segments[Ss].limit = 0x2fffe;
  set_gate(StackFault, 0x85, 0);
  machine.put<uint64_t>(idt + StackFault * 8, uint64_t{other_selector} << 16 | uint64_t{0x85} << 40);
  machine.put<uint32_t>(other_tss + 0x20, 0x6000);
  machine.put<uint32_t>(other_tss + 0x24, 2);
  machine.put<uint32_t>(other_tss + 0x38, 0x6800);
  for (unsigned i = 0; i < 4; ++i) machine.put<uint32_t>(other_tss + 0x48 + 4 * i, i == 1 ? code0 : data0);
  run({0x50});  // push eax beyond the limit: #SS through a task gate
  EXPECT_EQ(cpu.rip, 0x6000u);
  EXPECT_EQ(cpu.tr.selector, other_selector);
  EXPECT_EQ(cpu.gpr[Rsp], 0x67fcu);
  EXPECT_EQ(machine.get<uint32_t>(0x67fc), 0u);  // error code
  EXPECT_EQ(machine.get<uint16_t>(other_tss), tss_selector);
  EXPECT_EQ(machine.get<uint32_t>(tss + 0x20), code);
}

TEST_F(LegacyMode, TaskCallAndReturn) {
  protected_mode(0);
  machine.put<uint32_t>(other_tss + 0x20, 0x6000);
  machine.put<uint32_t>(other_tss + 0x24, 2);
  machine.put<uint32_t>(other_tss + 0x28, 0xaaaa);
  machine.put<uint32_t>(other_tss + 0x38, 0x6800);
  for (unsigned i = 0; i < 4; ++i) machine.put<uint32_t>(other_tss + 0x48 + 4 * i, i == 1 ? code0 : data0);
  cpu.gpr[Rax] = 0x1234;
  run({0x9a, 0, 0, 0, 0, other_selector, 0});
  EXPECT_EQ(cpu.rip, 0x6000u);
  EXPECT_EQ(cpu.gpr[Rax], 0xaaaau);
  EXPECT_TRUE(cpu.rflags & rflags::nt);
  EXPECT_TRUE(cpu.cr0 & cr0::ts);
  EXPECT_EQ(machine.get<uint8_t>(gdt + other_selector + 5), 0x8b);
  EXPECT_EQ(machine.get<uint8_t>(gdt + tss_selector + 5), 0x8b);
  cpu.gpr[Rax] = 0xbbbb;
  machine.put_code(0x6000, {0xcf});
  EXPECT_EQ(step(cpu), StepResult::Done);
  EXPECT_EQ(cpu.rip, code + 7);
  EXPECT_EQ(cpu.gpr[Rax], 0x1234u);
  EXPECT_FALSE(cpu.rflags & rflags::nt);
  EXPECT_EQ(machine.get<uint8_t>(gdt + other_selector + 5), 0x89);
  EXPECT_EQ(machine.get<uint32_t>(other_tss + 0x28), 0xbbbbu);
  EXPECT_EQ(machine.get<uint32_t>(other_tss + 0x20), 0x6001u);

  run({0xea, 0, 0, 0, 0, task_gate, 0});  // jump through a task gate: no link
  EXPECT_EQ(cpu.rip, 0x6001u);
  EXPECT_FALSE(cpu.rflags & rflags::nt);
  EXPECT_EQ(machine.get<uint8_t>(gdt + tss_selector + 5), 0x89);
}

TEST_F(LegacyMode, Virtual8086) {
  protected_mode(0);
  const std::array<uint32_t, 9> frame = {
      0x100, 0x2000, static_cast<uint32_t>(rflags::vm | 0x3202), 0x1000, 0x3000, 0x11, 0x22, 0x33, 0x44};
  cpu.gpr[Rsp] = 0x6000;
  machine.put(0x6000, frame);
  run({0xcf});
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.code_bits, 16);
  EXPECT_EQ(cpu.segments[Cs].base + cpu.rip, 0x20100u);
  EXPECT_EQ(cpu.segments[Ds].base, 0x220u);
  machine.put_code(0x20100, {0xfa});  // cli with IOPL 3
  EXPECT_EQ(step(cpu), StepResult::Done);
  EXPECT_FALSE(cpu.rflags & rflags::interrupt);
  machine.put_code(0x20101, {0xcd, 0x21});
  EXPECT_EQ(step(cpu), StepResult::Done);
  ASSERT_EQ(machine.taken(), 0x21u);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.gpr[Rsp], 0x7000u - 36);
  EXPECT_EQ(pushed(0), 0x103u);
  EXPECT_EQ(pushed(1), 0x2000u);
  EXPECT_TRUE(pushed(2) & rflags::vm);
  EXPECT_EQ(pushed(4), 0x3000u);  // SS
  EXPECT_EQ(pushed(5), 0x11u);    // ES
  EXPECT_EQ(pushed(8), 0x44u);    // GS
  EXPECT_TRUE(cpu.segments[Ds].unusable());

  machine.put_code(cpu.rip, {0xcf});
  EXPECT_EQ(step(cpu), StepResult::Done);
  EXPECT_EQ(cpu.segments[Cs].base + cpu.rip, 0x20103u);
  cpu.rflags &= ~rflags::iopl;
  machine.put_code(0x20103, {0xcd, 0x21});  // IOPL 0: #GP
  EXPECT_EQ(step(cpu), StepResult::Done);
  EXPECT_EQ(machine.taken(), unsigned{Gp});
}

TEST_F(LegacyMode, SixteenBitStackWraps) {
  protected_mode(0);
  cpu.segments[Ss] = {.base = 0x40000, .limit = 0xffff, .attributes = 0x93, .selector = data0};
  update_mode(cpu);
  cpu.gpr[Rsp] = 0x1234'0000;
  cpu.gpr[Rax] = 0xcafe'f00d;
  run({0x50});
  EXPECT_EQ(cpu.gpr[Rsp], 0x1234'fffcu);
  EXPECT_EQ(machine.get<uint32_t>(0x4fffc), 0xcafe'f00du);
}

TEST_F(LegacyMode, ExpandDownSegment) {
  protected_mode(0);
  cpu.segments[Ds] = {.base = 0, .limit = 0xfff, .attributes = 0x4097, .selector = data0};
  run({0xa1, 0x00, 0x10, 0, 0});
  EXPECT_EQ(cpu.rip, code + 5);
  run({0xa1, 0xfc, 0x0f, 0, 0});
  EXPECT_EQ(machine.taken(), unsigned{Gp});
}

TEST_F(LegacyMode, AccessRightsAndLimits) {
  protected_mode(3);
  cpu.gpr[Rcx] = code0;
  cpu.gpr[Rax] = 0x5555;
  run({0x0f, 0x02, 0xc1});  // lar eax, ecx: not visible from ring 3
  EXPECT_EQ(cpu.gpr[Rax], 0x5555u);
  EXPECT_FALSE(cpu.rflags & rflags::zf);
  cpu.gpr[Rcx] = data3 | 3;
  run({0x0f, 0x02, 0xc1});
  EXPECT_TRUE(cpu.rflags & rflags::zf);
  EXPECT_EQ(cpu.gpr[Rax], 0xc0f300u);
  run({0x0f, 0x03, 0xc1});  // lsl
  EXPECT_EQ(cpu.gpr[Rax], 0xffff'ffffu);
  run({0x0f, 0x00, 0xe9});  // verw cx
  EXPECT_TRUE(cpu.rflags & rflags::zf);
  cpu.gpr[Rcx] = code3 | 3;
  run({0x0f, 0x00, 0xe9});
  EXPECT_FALSE(cpu.rflags & rflags::zf);
}

TEST_F(LegacyMode, BoundAndOverflow) {
  protected_mode(3);
  machine.put<int32_t>(0x40000, -5);
  machine.put<int32_t>(0x40004, 5);
  cpu.gpr[Rbx] = 0x40000;
  cpu.gpr[Rax] = 0xffff'fffb;
  run({0x62, 0x03});
  EXPECT_EQ(cpu.rip, code + 2);
  cpu.gpr[Rax] = 6;
  run({0x62, 0x03});
  EXPECT_EQ(machine.taken(), unsigned{Br});
  protected_mode(3);
  cpu.rflags |= rflags::of;
  run({0xce});
  ASSERT_EQ(machine.taken(), unsigned{Of});
  EXPECT_EQ(pushed(0), code + 1);
}

}  // namespace
}  // namespace caisson::jit::test
