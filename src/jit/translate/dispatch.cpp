// The inner loop: find the translation of the code at RIP, run it, see why it was left. Compiled without vector
// registers, because the guest's may be live in them.
#include "jit/fpu_aside.h"
#include "jit/mmu/mirror.h"
#include "jit/mmu/mmu.h"
#include "jit/profile.h"
#include "jit/translate/departure.h"
#include "jit/translate/stubs.h"
#include "jit/translate/system_path.h"
#include "jit/translate/translator.h"

namespace caisson::jit {
namespace {

using namespace x86;

// User code's key has no linear address: the page it runs in is in the Cpu.
uint64_t first_rip(const Cpu& cpu, const Block& block) {
  return cpu.user() ? cpu.code_base + block.key.rip : block.key.rip;
}

}  // namespace

BlockKey block_key(const Cpu& cpu, const CodePage& page, ModeWord mode) {
  const uint64_t offset = cpu.rip & 0xfff;
  return {.gpa = page.gpa | offset, .rip = cpu.user() ? offset : cpu.rip, .mode = mode};
}

bool Translator::translatable() const {
  const Cpu& cpu = cpu_;
  if ((cpu.rflags & rflags::tf) || cpu.interrupt_shadow != 0 || (cpu.dr[7] & 0xff) != 0) return false;
  if (cpu.cpl == 3 && (cpu.rflags & rflags::ac) && (cpu.cr0 & cr0::am)) return false;
  if (cpu.code_bits == 64) return true;
  if (cpu.code_bits != 32 || !cpu.stack_32) return false;
  for (const unsigned segment : {Cs, Ss, Ds, Es}) {
    const Segment& s = cpu.segments[segment];
    if (s.base != 0 || s.limit != 0xffff'ffff || s.unusable()) return false;
    // Flat writable data or code without expand-down.
    if (segment != Cs && ((s.type() & 8) || (s.type() & 6) != 2)) return false;
  }
  return true;
}

const uint8_t* Translator::find_code(Outcome& otherwise) {
  Cpu& cpu = cpu_;
  const unsigned table = static_cast<unsigned>(cpu.tlb_mode);
  const ModeWord mode = mode_word(cpu);
  JumpCache& jumps = cpu.jumps[table];
  if (cpu.jumps_mode[table] != mode) {
    // One table serves one mode at a time.
    if (cpu.code_noted) jumps.clear();
    cpu.jumps_mode[table] = mode;
  }
  JumpCache::Entry& known = jumps.entries[JumpCache::index(cpu.rip)];
  const bool careful = careful_ && slot_rip_ == cpu.rip && slot_mode_ == mode;
  if (slot_ == 0 && !careful && known.rip == cpu.rip) return known.code;

  if (slot_ == 0 && !careful) {
    if (const uint8_t* code = cpu.jump_memory.find(cpu.rip, mode, cpu.user())) {
      known = {.rip = cpu.rip, .code = code};
      if (cpu.user()) cpu.jumps_local[table] = true;
      return code;
    }
  }

  if (cpu.profile != nullptr) cpu.profile->count(Profile::jump_misses);
  CodePage page;
  if (!mmu::code_page(cpu, cpu.rip, page) || page.host == nullptr) {
    cpu.fault.raised = false;
    otherwise = Outcome::Interpret;
    return nullptr;
  }
  const BlockKey key = block_key(cpu, page, careful ? mode | mode_bits::careful : mode);
  CodeCache& cache = engine_.cache();
  Block* block = cache.find(key);
  if (block == nullptr) {
    otherwise = Outcome::NeedsTranslation;
    return nullptr;
  }
  // An interrupt may have come between the jump and here: then this is not where it leads. What is flushed in the lower
  // half of the address space is not looked for among the targets of chained jumps.
  const bool cross_page = slot_ & slot_cross_page;
  const bool chain = chain_ && slot_ != 0 && slot_generation_ == cache.generation() && slot_rip_ == cpu.rip &&
                     slot_mode_ == mode && (!cross_page || (page.global && !page.user && cpu.upper_half(cpu.rip)));
  if (chain || CodeCache::is_suspended(*block)) {
    const std::lock_guard hold(cache.lock());
    if (!block->alive) {
      otherwise = Outcome::NeedsTranslation;
      return nullptr;
    }
    fpu_put_away(cpu);  // both may allocate or free
    if (block->suspended) cache.resume(*block);
    if (chain) {
      if (cross_page) cache.note_cross_page_target(*block);
      cache.chain(reinterpret_cast<const uint8_t*>(slot_ & slot_address), *block);
    }
  }
  if (cpu.profile != nullptr && slot_ != 0) cpu.profile->count(chain ? Profile::chained : Profile::not_chained);
  slot_ = 0;
  careful_ = false;
  found_ = block;
  if (careful || !chain_) return block->start;
  if (!page.global || cpu.user()) cpu.jumps_local[table] = true;
  cpu.code_noted = true;
  known = {.rip = cpu.rip, .code = block->start};
  // User code of all PCIDs is not worth a kind of its own. And INVLPG of addresses in the lower half, frequent for user
  // code, leaves what is known of the supervisor's: it has to be of the upper half.
  if (cpu.user() ? page.global : cpu.paging && !cpu.upper_half(cpu.rip)) {
    cpu.jump_memory.note_page(cpu.rip);
  } else {
    cpu.jump_memory.put(cpu.rip, mode, cpu.user(), block->start);
  }
  if (cpu.user()) cpu.jump_memory.put_physical(key.gpa, mode, block->start);
  return block->start;
}

// Makes one of the other reasons of Leave::Depart.
void Translator::departed() {
  Cpu& cpu = cpu_;
  Departure departure;
  departure.read(reinterpret_cast<const uint8_t*>(cpu.leave_detail));
  cpu.rip = departure.target + (cpu.user() ? cpu.code_base : 0);
  if (cpu.code_bits == 32) cpu.rip &= 0xffff'ffff;
  if (!departure.flags_in_memory) cpu.flags_ax = cpu.leave_word;
  cpu.leave_word = departure.word;
  switch (departure.kind) {
    case Departure::Kind::Dispatch: cpu.leave = static_cast<uint32_t>(Leave::Dispatch); break;
    case Departure::Kind::Interpret: cpu.leave = static_cast<uint32_t>(Leave::Interpret); return;
    case Departure::Kind::System: cpu.leave = static_cast<uint32_t>(Leave::System); return;
    case Departure::Kind::Stale:
      cpu.leave = static_cast<uint32_t>(Leave::Dispatch);
      cpu.leave_detail = slot_stale;
      return;
  }
  cpu.leave_detail = departure.slot;
  if (departure.cross_page) cpu.leave_detail |= slot_cross_page;
  if (departure.careful) cpu.leave_detail |= slot_careful;
}

Translator::Outcome Translator::left() {
  Cpu& cpu = cpu_;
  if (cpu.leave == static_cast<uint32_t>(Leave::Depart)) departed();
  if (cpu.profile != nullptr && cpu.leave != 0 && cpu.leave <= static_cast<uint32_t>(Leave::System))
    cpu.profile->count(static_cast<Profile::Event>(Profile::leaves_interpret + cpu.leave - 1));
  switch (static_cast<Leave>(cpu.leave)) {
    case Leave::Dispatch:
      slot_ = cpu.leave_detail;
      careful_ = slot_ != slot_stale && (slot_ & slot_careful) != 0;
      if (cpu.profile != nullptr && slot_ == 0) cpu.profile->count(Profile::polls);
      if (cpu.profile != nullptr && slot_ == slot_stale) cpu.profile->count(Profile::stale);
      if (slot_ == slot_stale) {
        // A dead or suspended block: what pointed to it was this cache, or a chained jump that stays as it is.
        cpu.jumps[static_cast<unsigned>(cpu.tlb_mode)].drop(JumpCache::index(cpu.rip));
        cpu.jump_memory.drop(cpu.rip);
        slot_ = 0;
      }
      slot_rip_ = cpu.rip;
      slot_mode_ = static_cast<ModeWord>(cpu.jumps_mode[static_cast<unsigned>(cpu.tlb_mode)]);
      return Outcome::Dispatch;
    case Leave::Interpret:
    case Leave::Depart: return Outcome::Interpret;
    case Leave::Lookup: {
      slot_ = 0;
      careful_ = false;
      if (cpu.profile != nullptr) cpu.profile->count(Profile::polls);
      cpu.leave = static_cast<uint32_t>(Leave::Dispatch);
      if (cpu.leave_detail == 0 || cpu.code_bits != 64 || canonical(cpu.rip)) return Outcome::Dispatch;
      cpu.leave = static_cast<uint32_t>(Leave::Interpret);
      const std::lock_guard hold(engine_.cache().lock());
      const auto* at = reinterpret_cast<const uint8_t*>(cpu.leave_detail);
      IndirectBranch branch;
      branch.read(at);
      cpu.rip = first_rip(cpu, *engine_.cache().block_at(at)) + branch.guest_offset;
      cpu.gpr[Rsp] += static_cast<uint64_t>(int64_t{branch.undo});
      return Outcome::Interpret;
    }
    case Leave::System: slot_ = 0; return run_system(cpu, cpu.leave_word) ? Outcome::Dispatch : Outcome::Interpret;
    case Leave::Slow: {
      const std::lock_guard hold(engine_.cache().lock());
      const Block* block = engine_.cache().block_at(reinterpret_cast<const uint8_t*>(cpu.leave_detail));
      cpu.rip = first_rip(cpu, *block) + (cpu.leave_word >> fill_word::guest_offset_shift);
      return Outcome::Interpret;
    }
    case Leave::Signal: {
      const std::lock_guard hold(engine_.cache().lock());
      const auto* pc = reinterpret_cast<const uint8_t*>(cpu.leave_detail);
      const Block* block = engine_.cache().block_at(pc);
      const HostPoint point = engine_.cache().point_at(*block, pc);
      cpu.rip = first_rip(cpu, *block) + point.guest_offset;
      if (!point.flags_in_memory) cpu.flags_ax = flags_to_ax(cpu.leave_word);
      return Outcome::Interpret;
    }
  }
  return Outcome::Interpret;
}

const Block* Translator::find_block(Outcome& otherwise) { return find_code(otherwise) == nullptr ? nullptr : found_; }

Translator::Outcome Translator::run_block(const Block& block) {
  cpu_.flags_ax = flags_to_ax(cpu_.rflags);
  engine_.stubs().enter(block.start, &cpu_);
  const Outcome outcome = left();
  cpu_.rflags = flags_from_ax(cpu_.flags_ax, cpu_.rflags);
  fpu_put_away(cpu_);
  return outcome;
}

Translator::Outcome Translator::run() {
  Cpu& cpu = cpu_;
  const ProfileScope profiled(cpu, Doing::Dispatch);
  cpu.flags_ax = flags_to_ax(cpu.rflags);
  Outcome outcome = Outcome::Dispatch;
  while (cpu.exit_request.load(std::memory_order_relaxed) == 0) {
    const uint8_t* code = find_code(outcome);
    if (code == nullptr) break;
    slot_generation_ = engine_.cache().generation();
    if (cpu.profile != nullptr) cpu.profile->count(Profile::entries);
    // Mirrored code has RSP's address on the host in the register.
    const bool mirrored = (cpu.jumps_mode[static_cast<unsigned>(cpu.tlb_mode)] & mode_bits::mirror) != 0;
    const uint64_t moved = mirrored ? cpu.mirror->before_entry() : 0;
    cpu.gpr[Rsp] += moved;
    engine_.stubs().enter(code, &cpu);
    cpu.gpr[Rsp] -= moved;
    if (vector_registers_unsafe) fpu_put_away(cpu);
    outcome = left();
    if (outcome != Outcome::Dispatch) {
      slot_ = 0;
      break;
    }
  }
  cpu.rflags = flags_from_ax(cpu.flags_ax, cpu.rflags);
  return outcome;
}

}  // namespace caisson::jit
