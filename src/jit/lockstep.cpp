#include "jit/lockstep.h"

#include <Zydis/Zydis.h>
#include <cpuid.h>

#include <algorithm>
#include <cstring>

#include "jit/fpu.h"
#include "jit/interpret/interpreter.h"
#include "jit/mmu/mmu.h"

namespace caisson::jit {
namespace {

using namespace x86;

constexpr size_t longest_log = 1 << 20;  // bytes, of one block
constexpr unsigned attempts = 4;

// What an instruction can depend on, but for the translation caches.
void copy_state(const Cpu& from, Cpu& to) {
  to.gpr = from.gpr;
  to.rip = from.rip;
  to.rflags = from.rflags;
  to.segments = from.segments;
  to.ldtr = from.ldtr;
  to.tr = from.tr;
  to.gdtr = from.gdtr;
  to.idtr = from.idtr;
  to.cr0 = from.cr0;
  to.cr2 = from.cr2;
  to.cr3 = from.cr3;
  to.cr4 = from.cr4;
  to.efer = from.efer;
  to.xcr0 = from.xcr0;
  to.pdpte = from.pdpte;
  to.dr = from.dr;
  to.msrs = from.msrs;
  to.tsc_offset = from.tsc_offset;
  to.activity = from.activity;
  to.interrupt_shadow = from.interrupt_shadow;
  to.nmi_blocked = from.nmi_blocked;
  to.fault = {};
  update_mode(to);
}

void drop_caches(Cpu& cpu) {
  for (Tlb& tlb : cpu.tlb) {
    tlb.read_tag.fill(invalid_tag);
    tlb.write_tag.fill(invalid_tag);
  }
  for (CodePage& page : cpu.code_pages) page.linear = invalid_tag;
  cpu.walk_memory.drop_all();
}

bool same_segment(const Segment& a, const Segment& b) {
  return a.base == b.base && a.limit == b.limit && a.attributes == b.attributes && a.selector == b.selector;
}

// Offset and size of an XSAVE component in the standard format (vol. 1, 13.4).
struct Component {
  unsigned bit, offset, size;
};
const std::vector<Component>& components() {
  static const std::vector<Component> all = [] {
    std::vector<Component> found{{0, 32, 128}, {1, 160, 256}};
    for (unsigned bit = 2; bit < 8; ++bit) {
      if ((fpu_components() >> bit & 1) == 0) continue;
      uint32_t size, offset, ecx, edx;
      __cpuid_count(0xd, bit, size, offset, ecx, edx);
      if (offset + size <= xsave_area_size) found.push_back({bit, offset, size});
    }
    return found;
  }();
  return all;
}

}  // namespace

bool same_fpu_state(const std::array<uint8_t, xsave_area_size>& a, const std::array<uint8_t, xsave_area_size>& b) {
  if (std::memcmp(a.data(), b.data(), a.size()) == 0) return true;
  const auto in_use = [](const auto& image, unsigned bit) { return (image[512] >> bit & 1) != 0; };
  // x87 control, status and tags: FCW is 37Fh initially (vol. 1, 13.6).
  static constexpr std::array<uint8_t, 5> initial{0x7f, 3, 0, 0, 0};
  const uint8_t* control[2] = {in_use(a, 0) ? a.data() : initial.data(), in_use(b, 0) ? b.data() : initial.data()};
  if (std::memcmp(control[0], control[1], initial.size()) != 0) return false;
  if (std::memcmp(&a[24], &b[24], 4) != 0) return false;  // MXCSR
  static constexpr std::array<uint8_t, 2048> zero{};
  return std::ranges::all_of(components(), [&](const Component& part) {
    const uint8_t* of_a = in_use(a, part.bit) ? &a[part.offset] : zero.data();
    const uint8_t* of_b = in_use(b, part.bit) ? &b[part.offset] : zero.data();
    return std::memcmp(of_a, of_b, part.size) == 0;
  });
}

// --- turns -----------------------------------------------------------------------------------------------------------

void Turns::take() {
  std::unique_lock hold(lock_);
  const uint64_t mine = next_++;
  changed_.wait(hold, [&] { return now_ == mine; });
}

void Turns::give() {
  const std::lock_guard hold(lock_);
  ++now_;
  changed_.notify_all();
}

void Turns::pass() {
  {
    const std::lock_guard hold(lock_);
    if (next_ == now_ + 1) return;
  }
  give();
  take();
}

// --- one block -------------------------------------------------------------------------------------------------------

Lockstep::Lockstep(JitEngine& engine, Cpu& cpu, Translator& translator)
    : engine_(engine), cpu_(cpu), translator_(translator), shadow_(new Cpu) {
  shadow_->memory = cpu.memory;
  shadow_->bus = cpu.bus;
  shadow_->clock = cpu.clock;
  shadow_->interrupts = cpu.interrupts;
  shadow_->model = cpu.model;
  shadow_->engine = cpu.engine;
  shadow_->index = cpu.index;
  shadow_->trial = &log_;
  drop_caches(*shadow_);
}

const Lockstep::Items& Lockstep::items_of(const Block& block) {
  if (generation_ != engine_.cache().generation()) {
    generation_ = engine_.cache().generation();
    items_.clear();
  }
  Items& items = items_[&block];
  if (!items.empty()) return items;
  std::vector<uint8_t> bytes(block.guest_size);
  const size_t here = block.guest_size - block.next_size;
  (void)cpu_.memory->read_with_rom(block.key.gpa, std::span(bytes).first(here));
  if (block.next_size != 0) (void)cpu_.memory->read_with_rom(block.next_page, std::span(bytes).subspan(here));
  const unsigned code_bits = block.key.mode & mode_bits::code_32 ? 32 : 64;
  uint16_t offset = 0;
  for (unsigned i = 0; i < block.instructions; ++i) {
    Item item{.offset = offset};
    Instruction in;
    if (decode(std::span<const uint8_t>(bytes).subspan(offset), code_bits, in) == DecodeStatus::Ok) {
      item.length = in.length;
      item.kind = classify(in, block.key.mode);
      if (left_to_interpreter(in, item.kind, engine_.options().off)) item.kind = Kind::Interpret;
      item.element = static_cast<uint8_t>(in.operand_bits / 8);
      item.fpu = in.simd || in.mnemonic == ZYDIS_MNEMONIC_LDMXCSR || in.mnemonic == ZYDIS_MNEMONIC_STMXCSR;
      items.fpu |= item.fpu;
      const FlagUse use = flag_use(in);
      item.reads = use.reads;
      item.overwrites = use.overwrites;
      item.undefined = in.flags_undefined & all_status_flags;
    }
    offset = static_cast<uint16_t>(offset + item.length);
    items.push_back(item);
  }
  return items;
}

void Lockstep::add_point(const Point& before, const Item* item) {
  Point point{.gpr = shadow_->gpr,
              .rip = shadow_->rip,
              .rflags = shadow_->rflags,
              .kernel_gs_base = shadow_->msr(MsrSlot::KernelGsBase),
              .segments = shadow_->segments,
              .writes = log_.writes().size(),
              .fpu = before.fpu,
              .undefined = before.undefined,
              .dropped = before.dropped};
  if (item != nullptr) {
    point.undefined = (before.undefined & ~item->overwrites) | item->undefined;
    point.dropped = before.dropped & ~item->overwrites;
  }
  if (item != nullptr ? item->fpu : with_fpu_) {
    images_.push_back(shadow_->xsave);
    point.fpu = images_.size() - 1;
  }
  points_.push_back(point);
}

// The instruction at the shadow's RIP. False: it is not for a trial, and nothing has happened.
bool Lockstep::one(const Item& item) {
  Cpu& cpu = *shadow_;
  const uint64_t rip = cpu.rip;
  const size_t writes = log_.writes().size();
  bool fine = true;
  do {
    const StepResult result = step(cpu);
    log_.settle();
    fine = result == StepResult::Done && !cpu.fault.raised;
    if (fine && log_.size_in_bytes() > longest_log) fine = false, cut_ = true;
  } while (fine && cpu.rip == rip && item.kind == Kind::String);  // REP is done in pieces
  if (fine) return true;
  log_.undo(writes);
  log_.shorten(writes);
  return false;
}

bool Lockstep::trial(const Items& items) {
  Cpu& cpu = *shadow_;
  copy_state(cpu_, cpu);
  with_fpu_ = items.fpu;
  if (with_fpu_) cpu.xsave = cpu_.xsave;
  if (cpu.flushes != cpu_.flushes) {
    drop_caches(cpu);
    cpu.flushes = cpu_.flushes;
  }
  log_.clear();
  points_.clear();
  images_.clear();
  cut_ = false;
  if (cpu_.rip != dropped_rip_ || cpu_.instructions != dropped_instructions_) dropped_ = 0;
  add_point({.dropped = dropped_}, nullptr);
  for (const Item& item : items) {
    if (const uint32_t lost = points_.back().dropped & item.reads) {
      difference_ = flags_lost(lost, points_.front().rip + item.offset);
      return false;
    }
    if (item.kind == Kind::Interpret || !one(item)) break;
    const Point before = points_.back();
    add_point(before, &item);
    if (cpu.rip != points_.front().rip + item.offset + item.length) break;
  }
  log_.undo();
  return true;
}

// As before the translator ran.
void Lockstep::back_to_start() {
  log_.undo();
  for (const TrialLog::Foreign& one : log_.restore_margins()) foreign_.push_back(one);
  const Point& start = points_.front();
  cpu_.gpr = start.gpr;
  cpu_.rip = start.rip;
  cpu_.rflags = start.rflags;
  cpu_.segments = start.segments;
  cpu_.msr(MsrSlot::KernelGsBase) = start.kernel_gs_base;
  if (with_fpu_) cpu_.xsave = images_.front();
  update_mode(cpu_);
}

Translator::Outcome Lockstep::run_block() {
  Translator::Outcome outcome = Translator::Outcome::Dispatch;
  fpu_put_away(cpu_);
  const Block* block = translator_.find_block(outcome);
  if (block == nullptr) return outcome;
  const Items& items = items_of(*block);
  const bool code_32 = block->key.mode & mode_bits::code_32;
  // Devices look at memory under this lock; none may see what the trial wrote.
  const std::lock_guard devices(cpu_.bus->lock());
  for (unsigned attempt = 1;; ++attempt) {
    if (!trial(items)) {
      difference_ += code_text(*block, items, ~uint64_t{0});
      return outcome;
    }
    outcome = translator_.run_block(*block);
    ++statistics_.blocks;
    if (agrees(items, code_32)) {
      // What came from elsewhere then, and not from the translator, stays.
      for (const TrialLog::Foreign& one : foreign_) {
        if (*one.byte == one.before) *one.byte = one.found;
      }
      foreign_.clear();
      return outcome;
    }
    if (attempt == attempts) break;
    ++statistics_.again;
    back_to_start();
  }
  difference_ = report(*block, items);
  return outcome;
}

// --- comparison ------------------------------------------------------------------------------------------------------

bool Lockstep::same_memory(size_t writes) const {
  for (size_t i = 0; i < writes; ++i) {
    if (log_.difference(i, log_.writes().size()) != log_.writes()[i].size) return false;
  }
  return true;
}

bool Lockstep::same(const Point& point, bool code_32) const {
  const uint64_t mask = code_32 ? 0xffff'ffff : ~uint64_t{0};  // upper halves have no meaning outside 64-bit mode
  for (unsigned i = 0; i < 16; ++i) {
    if ((cpu_.gpr[i] ^ point.gpr[i]) & mask) return false;
  }
  // RF is cleared by every instruction; the translator leaves that to what looks at it.
  if ((cpu_.rflags ^ point.rflags) & ~(rflags::status | rflags::rf)) return false;
  for (unsigned i = 0; i < 6; ++i) {
    if (!same_segment(cpu_.segments[i], point.segments[i])) return false;
  }
  const Cpu& cpu = cpu_;
  if (cpu.msrs[static_cast<size_t>(MsrSlot::KernelGsBase)] != point.kernel_gs_base) return false;
  if (!same_memory(point.writes)) return false;
  if (!with_fpu_ || same_fpu_state(cpu.xsave, images_[point.fpu])) return true;
  if (cpu.leave != static_cast<uint32_t>(Leave::Signal)) return false;
  // The instruction that faults has set exception flags already (MXCSR, FSW); the interpreter does that again.
  Image faulted = images_[point.fpu];
  for (const size_t flags : {2, 3, 24}) faulted[flags] = cpu.xsave[flags];
  return same_fpu_state(cpu.xsave, faulted);
}

// A string instruction that was left in the middle: the registers agree with each other; what it wrote is not compared.
bool Lockstep::same_string_part(const Item& item, size_t index) const {
  const Point& before = points_[index];
  for (unsigned i = 0; i < 16; ++i) {
    if (i != Rcx && i != Rsi && i != Rdi && cpu_.gpr[i] != before.gpr[i]) return false;
  }
  const uint64_t written = cpu_.gpr[Rdi] - before.gpr[Rdi], read = cpu_.gpr[Rsi] - before.gpr[Rsi];
  const uint64_t elements = before.gpr[Rcx] - cpu_.gpr[Rcx];
  return elements <= before.gpr[Rcx] && written == elements * item.element && (read == 0 || read == written) &&
         same_memory(before.writes);
}

bool Lockstep::agrees(const Items& items, bool code_32) {
  for (size_t i = points_.size(); i-- > 0;) {
    if (points_[i].rip != cpu_.rip) continue;
    if (same(points_[i], code_32)) {
      // Where the trial went further its translation caches may know a mapping that it made and that is not there yet.
      if (i + 1 < points_.size() && log_.walked()) drop_caches(*shadow_);
      carry_flags(items, i);
      statistics_.instructions += i;
      return true;
    }
    if (i < items.size() && items[i].kind == Kind::String && same_string_part(items[i], i)) {
      ++statistics_.unchecked;
      return true;
    }
  }
  if (!cut_) return false;
  ++statistics_.unchecked;
  dropped_ = 0;
  return true;
}

void Lockstep::carry_flags(const Items& items, size_t index) {
  const Point& point = points_[index];
  dropped_ = point.dropped | (static_cast<uint32_t>((cpu_.rflags ^ point.rflags) & rflags::status) & ~point.undefined);
  dropped_rip_ = cpu_.rip;
  dropped_instructions_ = cpu_.instructions;
  dropped_by_ = points_.front().rip;
  // The interpreter may do the next one.
  if (index < items.size() && points_.front().rip + items[index].offset == cpu_.rip) {
    if (const uint32_t lost = dropped_ & items[index].reads) difference_ = flags_lost(lost, cpu_.rip);
  }
}

}  // namespace caisson::jit
