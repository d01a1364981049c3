// The interpreter's step: fetch, decode (from a cache where the bytes are still the same), execute, deliver.
//   Source   Intel SDM vol. 3, 6.9 (what comes before what), 17.3 (#DB)
#include "jit/interpret/interpreter.h"

#include <memory>

#include "jit/fpu.h"
#include "jit/interpret/breakpoints.h"
#include "jit/interpret/decode_cache.h"
#include "jit/interpret/interrupt_delivery.h"
#include "jit/interpret/msr.h"
#include "jit/interpret/operands.h"
#include "jit/interpret/privilege.h"
#include "jit/interpret/segments.h"
#include "jit/interpret/simd.h"

namespace caisson::jit {

using namespace x86;

namespace {

bool undefined(Step& step) { return raise(step.cpu, Ud); }

const HandlerTable& handlers() {
  static const HandlerTable table = [] {
    HandlerTable made;
    add_alu(made);
    add_moves(made);
    add_atomics(made);
    add_multiply(made);
    add_decimal(made);
    add_shifts(made);
    add_bits(made);
    add_strings(made);
    add_stack(made);
    add_branches(made);
    add_interrupts(made);
    add_segments(made);
    add_descriptor_tables(made);
    add_control_registers(made);
    add_msrs(made);
    add_io(made);
    add_syscalls(made);
    add_system(made);
    add_fpu_state(made);
    return made;
  }();
  return table;
}

// VEX and EVEX are invalid outside protected mode; the decoder knows them everywhere.
Handler handler_for(const Instruction& in) {
  // MOVSD and CMPSD are names of string instructions, too.
  if (in.simd) return run_simd;
  if (in.encoding == Encoding::Xop || in.encoding == Encoding::Now3d) return undefined;
  const Handler found = handlers().find(in);
  return found != nullptr ? found : undefined;
}

// Linear address of RIP; #GP(0) where nothing can be fetched there.
bool code_address(Cpu& cpu, uint64_t& linear) {
  if (cpu.code_bits == 64) {
    linear = cpu.rip;
    return canonical(linear) || raise(cpu, Gp, 0);
  }
  const Segment& cs = cpu.segments[Cs];
  linear = (cs.base + cpu.rip) & 0xffff'ffff;
  return cpu.rip <= cs.limit || raise(cpu, Gp, 0);
}

// The instruction at `linear` through fetch and decoder, into the cache. Null with a fault raised.
DecodeCache::Entry* decode_slowly(Cpu& cpu, uint64_t linear) {
  for (;;) {
    std::array<uint8_t, 15> bytes;
    const unsigned size = mmu::fetch(cpu, linear, bytes.data());
    if (size == 0) return nullptr;
    DecodeCache::Entry& entry = cpu.interpreter->entry(linear);
    entry.linear = DecodeCache::empty;
    switch (decode({bytes.data(), size}, cpu.code_bits, entry.in)) {
      case DecodeStatus::Ok: break;
      case DecodeStatus::Truncated:
        if (!mmu::fetch_fault(cpu, linear)) return nullptr;
        continue;  // the next page has come since
      case DecodeStatus::Invalid: raise(cpu, Ud); return nullptr;
      case DecodeStatus::TooLong: raise(cpu, Gp, 0); return nullptr;
    }
    if (cpu.code_bits != 64 && cpu.rip + entry.in.length - 1 > cpu.segments[Cs].limit) {
      raise(cpu, Gp, 0);
      return nullptr;
    }
    entry.handler = handler_for(entry.in);
    entry.set_key(linear, cpu.code_bits);
    return &entry;
  }
}

DecodeCache::Entry* find_instruction(Cpu& cpu, uint64_t linear) {
  DecodeCache::Entry& entry = cpu.interpreter->entry(linear);
  const CodePage& page = cpu.code_pages[linear >> 12 & (code_page_entries - 1)];
  const unsigned offset = linear & 0xfff;
  if (entry.linear == linear && entry.code_bits == cpu.code_bits && page.linear == (linear & ~uint64_t{0xfff}) &&
      page.user == cpu.user() && offset <= 0x1000 - 16 && entry.matches(page.host + offset) &&
      (cpu.code_bits == 64 || cpu.rip + entry.in.length - 1 <= cpu.segments[Cs].limit)) [[likely]] {
    return &entry;
  }
  return decode_slowly(cpu, linear);
}

// #DB by an instruction breakpoint is a fault: before the instruction, unless RF holds it off.
bool code_breakpoint(Cpu& cpu, uint64_t linear) {
  const uint32_t hits = breakpoint_hits(cpu, linear, 1, BreakOn::Execute);
  if (hits == 0) return false;
  cpu.dr[6] |= hits;
  raise(cpu, Db);
  return true;
}

}  // namespace

StepResult step(Cpu& cpu) {
  if (cpu.interpreter == nullptr) [[unlikely]]
    cpu.interpreter = make_decode_cache();
  const uint64_t flags = cpu.rflags;
  const uint8_t shadow = std::exchange(cpu.interrupt_shadow, uint8_t{0});
  uint64_t linear;
  if (!code_address(cpu, linear)) return deliver_fault(cpu);
  const bool breakpoints = cpu.dr[7] & 0xff;
  if (breakpoints && !(flags & rflags::rf) && code_breakpoint(cpu, linear)) return deliver_fault(cpu);
  DecodeCache::Entry* entry = find_instruction(cpu, linear);
  if (entry == nullptr) return deliver_fault(cpu);

  Step step{.cpu = cpu, .in = entry->in};
  step.next = cpu.rip + entry->in.length;
  if (cpu.code_bits != 64) step.next &= 0xffff'ffff;
  step.watch = breakpoints || ((flags & rflags::ac) && cpu.cpl == 3 && (cpu.cr0 & cr0::am));
  cpu.rflags = flags & ~rflags::rf;
  if (!entry->handler(step)) [[unlikely]] {
    if (step.not_alone) {
      cpu.rflags = flags;
      cpu.interrupt_shadow = shadow;
      return StepResult::NotAlone;
    }
    return deliver_fault(cpu);
  }
  cpu.rip = step.next;
  ++cpu.instructions;
  if (step.unfinished) cpu.rflags |= flags & rflags::rf;
  if ((flags & rflags::tf) | step.breakpoints) [[unlikely]] {
    uint32_t cause = step.breakpoints;
    if ((flags & rflags::tf) && !step.inhibit_trap) cause |= 1u << 14;
    // After MOV SS nothing is delivered, the trap neither (vol. 3, 6.8.3).
    if (cause != 0 && cpu.interrupt_shadow != 2) return deliver_debug_trap(cpu, cause);
  }
  return step.halted ? StepResult::Halted : StepResult::Done;
}

void reset_cpu(Cpu& cpu, bool init) {
  // vol. 3, table 9-1.
  const uint64_t old_cr0 = cpu.cr0;
  cpu.gpr = {};
  cpu.gpr[Rdx] = cpu.model->cpuid(1, 0, {}).eax;
  cpu.rip = 0xfff0;
  cpu.rflags = rflags::fixed;
  for (Segment& segment : cpu.segments) segment = {.base = 0, .limit = 0xffff, .attributes = 0x93, .selector = 0};
  cpu.segments[Cs] = {.base = 0xffff'0000, .limit = 0xffff, .attributes = 0x9b, .selector = 0xf000};
  cpu.ldtr = {.base = 0, .limit = 0xffff, .attributes = 0x82, .selector = 0};
  cpu.tr = {.base = 0, .limit = 0xffff, .attributes = 0x8b, .selector = 0};
  cpu.gdtr = {};
  cpu.idtr = {};
  cpu.cr0 = init ? (old_cr0 & (cr0::cd | cr0::nw)) | cr0::et : cr0::cd | cr0::nw | cr0::et;
  cpu.cr2 = cpu.cr3 = cpu.cr4 = 0;
  cpu.efer = 0;
  cpu.pdpte = {};
  cpu.dr = {0, 0, 0, 0, 0, 0, 0xffff'0ff0, 0x400};
  cpu.activity = Activity::Running;
  cpu.interrupt_shadow = 0;
  cpu.nmi_blocked = false;
  cpu.fault = {};
  if (!init) {
    cpu.xcr0 = 1;
    cpu.tsc_offset = 0;
    fpu_init(cpu);
  }
  reset_msrs(cpu, init);
  update_mode(cpu);
  mmu::flush_all(cpu);
}

void start_at_sipi(Cpu& cpu, uint8_t vector) {
  cpu.segments[Cs].selector = static_cast<uint16_t>(vector << 8);
  cpu.segments[Cs].base = uint64_t{vector} << 12;
  cpu.rip = 0;
  cpu.activity = Activity::Running;
}

}  // namespace caisson::jit
