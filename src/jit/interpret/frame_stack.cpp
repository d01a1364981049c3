// Frames on stacks that are not yet current, and where the TSS says those stacks are.
//   Source   Intel SDM vol. 3, 5.8.5, 6.12.1, 7.2 and 7.7 (TSS layouts)
#include "jit/interpret/frame_stack.h"

namespace caisson::jit {

bool FrameStack::push(uint64_t value, unsigned bits) {
  const unsigned size = bits / 8;
  const uint64_t at = truncate(pointer_ - size, bits_);
  uint64_t linear = at;
  if (bits_ == 64) {
    if (!canonical(at) || !canonical(at + size - 1)) return raise(cpu_, x86::StackFault, error_);
  } else {
    const uint64_t last = at + size - 1;
    const bool expand_down = (segment_.type() & 12) == 4;
    const bool inside =
        expand_down ? at > segment_.limit && last <= (segment_.big() ? 0xffff'ffff : 0xffff) : last <= segment_.limit;
    if (!inside) return raise(cpu_, x86::StackFault, error_);
    linear = (segment_.base + at) & 0xffff'ffff;
  }
  const bool done = bits == 64   ? mmu::write<uint64_t>(cpu_, linear, value, as_)
                    : bits == 32 ? mmu::write<uint32_t>(cpu_, linear, static_cast<uint32_t>(value), as_)
                                 : mmu::write<uint16_t>(cpu_, linear, static_cast<uint16_t>(value), as_);
  if (done) pointer_ = at;
  return done;
}

bool stack_from_tss(Cpu& cpu, unsigned level, uint32_t ext, uint16_t& selector, uint64_t& pointer) {
  const bool wide = cpu.tr.type() & 8;
  const unsigned offset = wide ? 4 + 8 * level : 2 + 4 * level;
  const unsigned size = wide ? 6 : 4;
  if (offset + size - 1 > cpu.tr.limit) return raise(cpu, x86::Ts, selector_error(cpu.tr.selector) | ext);
  const uint64_t at = (cpu.tr.base + offset) & 0xffff'ffff;
  if (wide) {
    uint32_t esp;
    if (!mmu::read(cpu, at, esp, As::System) || !mmu::read(cpu, at + 4, selector, As::System)) return false;
    pointer = esp;
  } else {
    uint16_t sp;
    if (!mmu::read(cpu, at, sp, As::System) || !mmu::read(cpu, at + 2, selector, As::System)) return false;
    pointer = sp;
  }
  return true;
}

bool rsp_from_tss(Cpu& cpu, unsigned offset, uint32_t ext, uint64_t& pointer) {
  if (offset + 7 > cpu.tr.limit) return raise(cpu, x86::Ts, selector_error(cpu.tr.selector) | ext);
  if (!mmu::read(cpu, cpu.tr.base + offset, pointer, As::System)) return false;
  return canonical(pointer) || raise(cpu, x86::StackFault, ext);
}

}  // namespace caisson::jit
