// Windows: accesses through the same registers, which nothing but constants is added to (the stack above all), are
// checked once for all of them. Where the check fails, because the window lies across two pages or is no plain RAM, the
// block goes on in a translation of its remaining instructions that checks every access by itself ("careful").
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

}  // namespace

bool BlockBuilder::moves_by_constant(const Instruction& in, unsigned& reg, int64_t& by) {
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

void BlockBuilder::use_window(Item& item, uint8_t Item::*which, const Operand& address, unsigned size, bool write) {
  constexpr int64_t least = INT32_MIN / 2, most = INT32_MAX / 2;
  const uint8_t scale = address.index == Operand::no_register ? uint8_t{1} : address.scale;
  for (size_t i = 0; i < windows_.size(); ++i) {
    Window& window = windows_[i];
    if (!window.live || window.base != address.base || window.index != address.index || window.scale != scale) continue;
    const int64_t from = address.displacement + window.moved, to = from + size;
    const int64_t low = std::min<int64_t>(window.from, from), high = std::max<int64_t>(window.to, to);
    if (low < least || high > most || (high - low > widest && !mirrored())) {
      window.live = false;
      break;
    }
    window.from = static_cast<int32_t>(low);
    window.to = static_cast<int32_t>(high);
    window.write |= write;
    ++window.uses;
    item.*which = static_cast<uint8_t>(i);
    return;
  }
  const int64_t end = address.displacement + size;
  if (windows_.size() >= Item::no_window || address.displacement < least || end > most) return;
  windows_.push_back({.base = address.base,
                      .index = address.index,
                      .scale = scale,
                      .from = static_cast<int32_t>(address.displacement),
                      .to = static_cast<int32_t>(end),
                      .write = write,
                      .uses = 1});
  item.*which = static_cast<uint8_t>(windows_.size() - 1);
}

void BlockBuilder::plan_windows() {
  windows_.clear();
  for (Item& item : items_) item.operand_window = item.stack_window = Item::no_window;
  if ((block_.key.mode & (mode_bits::careful | mode_bits::code_32)) || (off_ & off::windows)) return;
  const auto bit = [](unsigned reg) { return reg < 16 ? 1u << reg : 0; };
  const auto changed = [&](uint32_t registers) {
    if (registers == 0) return;
    for (Window& window : windows_) window.live &= ((bit(window.base) | bit(window.index)) & registers) == 0;
  };
  const auto moved = [&](unsigned reg, int64_t by) {
    for (Window& window : windows_) {
      if (window.base == reg) window.moved += by;
      if (window.index == reg) window.moved += by * window.scale;
    }
  };
  constexpr uint8_t rsp = x86::Rsp, rbp = x86::Rbp;
  const auto stack = [&](Item& item, uint8_t base, int disp, bool write) {
    if (mirrored()) return;
    Operand address;
    address.base = base;
    address.displacement = disp;
    use_window(item, &Item::stack_window, address, 8, write);
  };
  for (Item& item : items_) {
    const Instruction& in = item.in;
    const Operand* memory = in.memory();
    const bool operand = item.kind == Kind::Native || item.kind == Kind::PushMemory ||
                         item.kind == Kind::JumpIndirect || item.kind == Kind::CallIndirect;
    if (operand && memory != nullptr && in.mnemonic != ZYDIS_MNEMONIC_LEA && memory->base < 16 && !memory->vsib &&
        memory->segment < x86::Fs && in.address_bits == 64 && !by_stack_pointer(*memory)) {
      const unsigned size = item.kind == Kind::Native ? memory->bits / 8u : 8;
      use_window(item, &Item::operand_window, *memory, size, item.kind == Kind::Native && memory->writes);
    }
    switch (item.kind) {
      case Kind::PushReg:
      case Kind::PushImmediate:
      case Kind::PushMemory:
      case Kind::PushFlags:
      case Kind::Call:
      case Kind::CallIndirect:
        stack(item, rsp, -8, true);
        moved(rsp, -8);
        continue;
      case Kind::PopReg:
        stack(item, rsp, 0, false);
        moved(rsp, 8);
        changed(bit(in.operands[0].reg));
        continue;
      case Kind::Return: stack(item, rsp, 0, false); continue;
      case Kind::Leave:
        stack(item, rbp, 0, false);
        changed(bit(rsp) | bit(rbp));
        continue;
      default: break;
    }
    unsigned reg;
    int64_t by;
    if (item.kind == Kind::Native && moves_by_constant(in, reg, by)) {
      moved(reg, by);
      continue;
    }
    changed(in.gpr_written);
    if (item.kind == Kind::ReadTime) changed(bit(x86::Rax) | bit(x86::Rcx) | bit(x86::Rdx));
    if (item.kind == Kind::String) changed(bit(x86::Rcx) | bit(x86::Rsi) | bit(x86::Rdi));
  }
  // A window of one access saves nothing, and there are only so many places for addends.
  uint8_t slots = 0;
  for (Window& window : windows_) {
    if (is_stack(window)) continue;  // needs none
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

// Spilled registers come into T0 (base) and T1 (index).
Address BlockBuilder::window_address(Emitter& out, const Window& window, int32_t disp) {
  const auto reg = [&](uint8_t guest, int scratch) {
    return guest == Operand::no_register ? int{none} : load_guest(out, guest, scratch);
  };
  const int base = reg(window.base, t0), index = reg(window.index, t1);
  return {.base = base, .index = index, .scale = window.scale, .disp = disp};
}

Address BlockBuilder::check_window(Emitter& out, const Item& item, Window& window, int32_t disp, bool collapse) {
  if (mirrored()) return mirror_window(out, item, window, disp, collapse);
  const bool stack = is_stack(window);
  const size_t stack_page = offsetof(Cpu, stack_pages) + sizeof(StackPage) * (block_.key.mode & mode_bits::tlb_mask);
  const Address addend = stack ? cpu_at(stack_page + offsetof(StackPage, addend))
                               : cpu_at(offsetof(Cpu, windows) + 8 * size_t{window.slot});
  const bool indexed = window.index != Operand::no_register;
  const bool direct = !indexed && !spilled(window.base);  // [base + addend + disp] is an operand
  bool addend_in_t1 = false;
  const auto size = static_cast<uint32_t>(window.to - window.from);
  const auto cold_window = [&](Cold& cold) {
    cold.what = Cold::What::Window;
    cold.window = window;
    cold.word = size | (window.write ? fill_word::window_write : 0) | (stack ? fill_word::window_stack : 0);
    cold.target = block_.key.rip + item.offset;
    cold.flags_in_memory = flags_ == Flags::InMemory;
  };
  if (!window.open && stack) {
    // Inside the page: first byte's address less the page's, unsigned, is at most 4096 - size.
    free_flags(out, item);
    out.lea(t0, {.base = guest_rsp, .disp = window.from});
    out.memory_op(0x2b, t0, cpu_at(stack_page + offsetof(StackPage, page)), true);         // sub t0, [page]
    out.register_op(0x81, 7, t0, true), out.u32(static_cast<uint32_t>(page_size) - size);  // cmp t0, 4096 - size
    Cold cold;
    cold_window(cold);
    cold.from = out.jump_if_later(7);  // ja
    cold.back = out.size();
    cold_.push_back(cold);
    window.open = true;
  } else if (!window.open) {
    free_flags(out, item);
    out.lea(t1, window_address(out, window, window.from));
    out.lea(t0, {.base = t1, .disp = static_cast<int32_t>(size) - 1});
    Cold& cold = look_up(out, item, size, window.write);
    cold_window(cold);
    out.store(addend, t1);
    window.open = true;
    addend_in_t1 = !indexed || !spilled(window.index);
  }
  if (direct) {
    if (!addend_in_t1) out.load(t1, addend);
    const Address operand{.base = load_guest(out, window.base, t0), .index = t1, .disp = disp};
    if (!collapse && !restores_flags(item)) return operand;
    out.lea(t0, operand);
    return {.base = t0};
  }
  out.lea(t0, window_address(out, window, disp));
  if (!addend_in_t1) out.load(t1, addend);
  if (!collapse && !restores_flags(item)) return {.base = t0, .index = t1};
  out.lea(t0, {.base = t0, .index = t1});
  return {.base = t0};
}

}  // namespace caisson::jit
