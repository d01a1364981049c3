// Accesses in mirrored address spaces (mmu/mirror.h): the addend of the region that the address lies in is all that is
// needed. Nothing here touches EFLAGS, and an access may fault on the host as it would on the guest: when it does, the
// guest's registers are as they were before the instruction.
#include "jit/mmu/mirror.h"
#include "jit/translate/block_builder.h"

namespace caisson::jit {

void BlockBuilder::mirror_addend(Emitter& out, int reg) {
  static_assert(Mirror::regions == 256);
  out.rotate_right(t1, reg, Mirror::region_shift);
  out.zero_extend_byte(t1);
  out.load(t1, {.index = t1, .scale = 8, .disp = static_cast<int32_t>(offsetof(Cpu, mirror_addends)), .gs = true});
}

Address BlockBuilder::collapse_if(Emitter& out, const Item& item, const Address& address, bool collapse) {
  if (!collapse && !restores_flags(item)) return address;
  out.lea(t0, address);
  return {.base = t0};
}

Address BlockBuilder::mirror_address(Emitter& out, const Item& item, const Operand& memory, bool collapse) {
  const bool based = memory.segment >= x86::Fs;
  const bool no_base = memory.base == Operand::no_register, no_index = memory.index == Operand::no_register;
  const auto disp = static_cast<int32_t>(memory.displacement);
  if (!based && memory.base < 16 && no_index) {
    const int base = load_guest(out, memory.base, t0);
    mirror_addend(out, base);
    return collapse_if(out, item, {.base = base, .index = t1, .disp = disp}, collapse);
  }
  if (!based && no_base && no_index) {
    out.move_immediate(t0, static_cast<uint64_t>(memory.displacement));
  } else if (!based && memory.base != Operand::rip_register) {
    const int base = no_base ? int{none} : load_guest(out, memory.base, t0);
    const int index = no_index ? int{none} : load_guest(out, memory.index, t1);
    out.lea(t0, {.base = base, .index = index, .scale = memory.scale ? memory.scale : 1});
    mirror_addend(out, t0);
    return collapse_if(out, item, {.base = t0, .index = t1, .disp = disp}, collapse);
  } else {
    linear_to_t0(out, item, memory);
  }
  mirror_addend(out, t0);
  return collapse_if(out, item, {.base = t0, .index = t1}, collapse);
}

Address BlockBuilder::mirror_window(Emitter& out, const Item& item, Window& window, int32_t disp, bool collapse) {
  const Address addend = cpu_at(offsetof(Cpu, windows) + 8 * size_t{window.slot});
  Address at = window_address(out, window, 0);
  if (window.index != Operand::no_register) {
    out.lea(t0, at);
    at = {.base = t0};
  }
  if (window.open) {
    out.load(t1, addend);
  } else {
    mirror_addend(out, at.base);
    out.store(addend, t1);
    window.open = true;
  }
  return collapse_if(out, item, {.base = at.base, .index = t1, .disp = disp}, collapse);
}

}  // namespace caisson::jit
