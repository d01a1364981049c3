// Windows: accesses through one base register that nothing but constants is added to (the stack above all) are checked
// once for all of them. Where the check fails, because the window lies across two pages or is no plain RAM, the block
// goes on in a translation of its remaining instructions that checks every access by itself ("careful").
//
// An addend that was found good stays good to the block's end: what would take it away (a flush, a page that becomes
// code) happens between blocks, and other vCPUs wait for this one to leave the guest.
#include <Zydis/Zydis.h>

#include <algorithm>

#include "jit/translate/block_builder.h"

namespace caisson::jit {
namespace {

// Wider windows would fail more often than they save checks: they cross a page with a probability of width/4096.
constexpr int64_t widest = 512;

// Adds a constant to a 64-bit register and does nothing else to general registers.
bool moves_by_constant(const Instruction& in, unsigned& reg, int64_t& by) {
  if (in.operand_bits != 64 || in.lock) return false;
  const Operand& to = in.operands[0];
  if (to.kind != Operand::Kind::Register || to.reg_class != RegisterClass::Gpr) return false;
  reg = to.reg;
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
      if (in.operands[1].kind != Operand::Kind::Immediate) return false;
      by = static_cast<int64_t>(in.operands[1].immediate);
      if (in.mnemonic == ZYDIS_MNEMONIC_SUB) by = -by;
      return true;
    case ZYDIS_MNEMONIC_INC: by = 1; return true;
    case ZYDIS_MNEMONIC_DEC: by = -1; return true;
    case ZYDIS_MNEMONIC_LEA: {
      const Operand& memory = *in.memory();
      by = memory.displacement;
      return in.address_bits == 64 && memory.base == reg && memory.index == Operand::no_register;
    }
    default: return false;
  }
}

}  // namespace

void BlockBuilder::use_window(Item& item, uint8_t Item::*which, unsigned base, int64_t displacement, unsigned size,
                              bool write) {
  const int64_t from = displacement + moved_[base], to = from + size;
  const bool fits = from > INT32_MIN / 2 && to < INT32_MAX / 2;
  if (const uint8_t newest = newest_window_[base]; newest != Item::no_window && fits) {
    Window& window = windows_[newest];
    const int64_t low = std::min<int64_t>(window.from, from), high = std::max<int64_t>(window.to, to);
    if (high - low <= widest) {
      window.from = static_cast<int32_t>(low);
      window.to = static_cast<int32_t>(high);
      window.write |= write;
      ++window.uses;
      item.*which = newest;
      return;
    }
  }
  newest_window_[base] = Item::no_window;
  moved_[base] = 0;
  const int64_t end = displacement + size;
  if (windows_.size() >= Item::no_window || displacement < INT32_MIN / 2 || end > INT32_MAX / 2) return;
  windows_.push_back({.base = static_cast<uint8_t>(base),
                      .from = static_cast<int32_t>(displacement),
                      .to = static_cast<int32_t>(end),
                      .write = write,
                      .uses = 1});
  newest_window_[base] = item.*which = static_cast<uint8_t>(windows_.size() - 1);
}

void BlockBuilder::plan_windows() {
  windows_.clear();
  newest_window_.fill(Item::no_window);
  for (Item& item : items_) item.operand_window = item.stack_window = Item::no_window;
  if (block_.key.mode & (mode_bits::careful | mode_bits::code_32)) return;
  const auto changed = [&](unsigned reg) { newest_window_[reg] = Item::no_window; };
  constexpr unsigned rsp = x86::Rsp, rbp = x86::Rbp;
  for (Item& item : items_) {
    const Instruction& in = item.in;
    const Operand* memory = in.memory();
    const bool operand = item.kind == Kind::Native || item.kind == Kind::PushMemory ||
                         item.kind == Kind::JumpIndirect || item.kind == Kind::CallIndirect;
    if (operand && memory != nullptr && in.mnemonic != ZYDIS_MNEMONIC_LEA && memory->base < 16 &&
        memory->index == Operand::no_register && memory->segment < x86::Fs && in.address_bits == 64) {
      const unsigned size = item.kind == Kind::Native ? memory->bits / 8u : 8;
      use_window(item, &Item::operand_window, memory->base, memory->displacement, size,
                 item.kind == Kind::Native && memory->writes);
    }
    switch (item.kind) {
      case Kind::PushReg:
      case Kind::PushImmediate:
      case Kind::PushMemory:
      case Kind::PushFlags:
      case Kind::Call:
      case Kind::CallIndirect:
        use_window(item, &Item::stack_window, rsp, -8, 8, true);
        moved_[rsp] -= 8;
        continue;
      case Kind::PopReg:
        use_window(item, &Item::stack_window, rsp, 0, 8, false);
        moved_[rsp] += 8;
        changed(in.operands[0].reg);
        continue;
      case Kind::Return: use_window(item, &Item::stack_window, rsp, 0, 8, false); continue;
      case Kind::Leave:
        use_window(item, &Item::stack_window, rbp, 0, 8, false);
        changed(rsp);
        changed(rbp);
        continue;
      default: break;
    }
    unsigned reg;
    int64_t by;
    if (item.kind == Kind::Native && moves_by_constant(in, reg, by)) {
      moved_[reg] += by;
      continue;
    }
    for (unsigned i = 0; i < 16; ++i) {
      if (in.gpr_written & 1u << i) changed(i);
    }
    if (item.kind == Kind::ReadTime) changed(x86::Rax), changed(x86::Rcx), changed(x86::Rdx);
    if (item.kind == Kind::String) changed(x86::Rcx), changed(x86::Rsi), changed(x86::Rdi);
  }
  // A window of one access saves nothing, and there are only so many places for addends.
  uint8_t slots = 0;
  for (Window& window : windows_) {
    if (window.uses > 1 && slots < std::tuple_size_v<decltype(Cpu::windows)>) {
      window.slot = slots++;
    } else {
      window.uses = 0;
    }
  }
  for (Item& item : items_) {
    for (uint8_t Item::*which : {&Item::operand_window, &Item::stack_window}) {
      if (item.*which != Item::no_window && windows_[item.*which].uses == 0) item.*which = Item::no_window;
    }
  }
}

Address BlockBuilder::check_window(Emitter& out, const Item& item, Window& window, int32_t disp, bool collapse) {
  const bool spilled = window.base >= 13;
  const auto base = [&] { return load_guest(out, window.base, r14); };
  const Address addend = cpu_at(offsetof(Cpu, windows) + 8 * size_t{window.slot});
  if (window.open) {
    out.load(r15, addend);
  } else {
    free_flags(out, item);
    const int reg = base();
    const auto size = static_cast<uint32_t>(window.to - window.from);
    out.lea(r15, {.base = reg, .disp = window.from});
    out.lea(r14, {.base = reg, .disp = window.to - 1});
    Cold& cold = look_up(out, item, size, window.write);
    cold.what = Cold::What::Window;
    cold.address = {.base = reg, .disp = window.from};
    cold.spilled_base = spilled ? window.base : -1;
    cold.word = size | (window.write ? fill_word::window_write : 0);
    cold.target = block_.key.rip + item.offset;
    cold.flags_in_memory = flags_ == Flags::InMemory;
    out.store(addend, r15);
    window.open = true;
  }
  const int reg = base();
  if (!spilled && !collapse && !restores_flags(item)) return {.base = reg, .index = r15, .disp = disp};
  out.lea(r14, {.base = reg, .index = r15, .disp = disp});
  return {.base = r14};
}

}  // namespace caisson::jit
