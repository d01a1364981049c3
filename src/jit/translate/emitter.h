// Writes x86-64 instructions: the few forms that the translator makes itself. Rewritten guest instructions are in
// rewrite.h.
//   Source   Intel SDM vol. 2, 2.1-2.2
//   Threads  none of its own
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "jit/cpu.h"

namespace caisson::jit {

// Host registers by number.
enum Host : int { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, none = -1 };

// The guest's registers live in the host registers of the same name, but for these three, which compilers use least:
// two are scratch, one holds the guest's RSP (the host needs its own). The guest's registers of these names stay in
// Cpu::gpr.
inline constexpr int guest_rsp = r9, t0 = r10, t1 = r11;
[[nodiscard]] constexpr bool spilled(unsigned guest) { return guest >= 9 && guest < 12; }
// Guest register → the host register it lives in.
[[nodiscard]] constexpr int home_of(unsigned guest) {
  return guest == 4 ? guest_rsp : spilled(guest) ? int{none} : static_cast<int>(guest);
}

struct Address {
  int base = none;
  int index = none;
  int scale = 1;
  int32_t disp = 0;
  bool cpu = false;  // relative to the vCPU's Cpu: a base or an index, not both
  bool gs = false;   // through the host's GS: in a mirrored address space, see mmu/mirror.h
};

// A member of Cpu.
[[nodiscard]] constexpr Address cpu_at(size_t offset) { return {.disp = static_cast<int32_t>(offset), .cpu = true}; }
[[nodiscard]] constexpr Address segment_base(unsigned segment) {
  return cpu_at(offsetof(Cpu, segments) + segment * sizeof(Segment) + offsetof(Segment, base));
}
#define CPU_FIELD(member) cpu_at(offsetof(Cpu, member))

class Emitter {
 public:
  // `write`: where bytes go; `run`: where they will be executed.
  Emitter(uint8_t* write, uint8_t* run, size_t room) : start_(write), at_(write), run_(run), end_(write + room) {}

  [[nodiscard]] size_t size() const { return static_cast<size_t>(at_ - start_); }
  [[nodiscard]] uint8_t* run_address() const { return run_ + size(); }
  [[nodiscard]] bool overflowed() const { return at_ + 64 > end_; }

  void u8(unsigned value) { *at_++ = static_cast<uint8_t>(value); }
  void u32(uint32_t value) { put(value); }
  void u64(uint64_t value) { put(value); }
  void bytes(const uint8_t* from, size_t count) {
    std::memcpy(at_, from, count);
    at_ += count;
  }
  void patch32(size_t offset, uint32_t value) { std::memcpy(start_ + offset, &value, 4); }

  // The host's RSP is at its Cpu, whose first members so have short addresses, or this many bytes below.
  void stack_below_cpu(int32_t bytes) { below_cpu_ = bytes; }

  // ModRM, SIB and displacement. `wide_disp`: never an 8-bit displacement (EVEX scales those).
  void address(int reg, const Address& given, bool wide_disp = false) {
    reg &= 7;
    const Address a = resolved(given);
    if (a.base == none && a.index == none) {
      u8(static_cast<unsigned>(reg) << 3 | 4);
      u8(0x25);
      u32(static_cast<uint32_t>(a.disp));
      return;
    }
    const unsigned scale_bits = a.scale == 8 ? 3 : a.scale == 4 ? 2 : a.scale == 2 ? 1 : 0;
    if (a.base == none) {
      u8(static_cast<unsigned>(reg) << 3 | 4);
      u8(scale_bits << 6 | static_cast<unsigned>(a.index & 7) << 3 | 5);
      u32(static_cast<uint32_t>(a.disp));
      return;
    }
    const bool sib = a.index != none || (a.base & 7) == 4;
    unsigned mod = 2;
    if (a.disp == 0 && (a.base & 7) != 5 && !(wide_disp && given.cpu))
      mod = 0;
    else if (a.disp >= -128 && a.disp <= 127 && !wide_disp)
      mod = 1;
    u8(mod << 6 | static_cast<unsigned>(reg) << 3 | (sib ? 4u : static_cast<unsigned>(a.base & 7)));
    if (sib)
      u8(scale_bits << 6 | (a.index == none ? 4u : static_cast<unsigned>(a.index & 7)) << 3 |
         static_cast<unsigned>(a.base & 7));
    if (mod == 1) u8(static_cast<unsigned>(a.disp) & 0xff);
    if (mod == 2) u32(static_cast<uint32_t>(a.disp));
  }

  unsigned rex_bits(bool w, int reg, const Address& given) const {
    const Address a = resolved(given);
    return (w ? 8u : 0u) | (reg >= 8 ? 4u : 0u) | (a.index >= 8 ? 2u : 0u) | (a.base >= 8 ? 1u : 0u);
  }

  // opcode reg, [address]
  void memory_op(unsigned opcode, int reg, const Address& a, bool w) {
    if (a.gs) u8(0x65);
    const unsigned rex = rex_bits(w, reg, a);
    if (rex) u8(0x40 | rex);
    u8(opcode);
    address(reg, a);
  }
  // opcode rm, reg (both registers)
  void register_op(unsigned opcode, int reg, int rm, bool w) {
    const unsigned rex = (w ? 8u : 0u) | (reg >= 8 ? 4u : 0u) | (rm >= 8 ? 1u : 0u);
    if (rex) u8(0x40 | rex);
    u8(opcode);
    u8(0xc0 | static_cast<unsigned>(reg & 7) << 3 | static_cast<unsigned>(rm & 7));
  }

  // opcode byte [address], immediate
  void byte_op(unsigned opcode, int extension, const Address& a, unsigned immediate) {
    memory_op(opcode, extension, a, false);
    u8(immediate);
  }

  void load(int reg, const Address& a) { memory_op(0x8b, reg, a, true); }
  void load32(int reg, const Address& a) { memory_op(0x8b, reg, a, false); }
  void store(const Address& a, int reg) { memory_op(0x89, reg, a, true); }
  void store32(const Address& a, int reg) { memory_op(0x89, reg, a, false); }
  void store_immediate(const Address& a, int32_t value) {  // 64 bits, sign-extended
    memory_op(0xc7, 0, a, true);
    u32(static_cast<uint32_t>(value));
  }
  void store32_immediate(const Address& a, int32_t value) {
    memory_op(0xc7, 0, a, false);
    u32(static_cast<uint32_t>(value));
  }
  void lea(int reg, const Address& a, bool w = true) { memory_op(0x8d, reg, a, w); }
  void move(int to, int from) { register_op(0x89, from, to, true); }
  void move_immediate(int reg, uint64_t value) {
    if (value <= 0xffff'ffff) {
      if (reg >= 8) u8(0x41);
      u8(0xb8 | (reg & 7));
      u32(static_cast<uint32_t>(value));
    } else if (static_cast<int64_t>(value) == static_cast<int32_t>(value)) {
      u8(reg >= 8 ? 0x49 : 0x48);
      u8(0xc7);
      u8(0xc0 | (reg & 7));
      u32(static_cast<uint32_t>(value));
    } else {
      u8(reg >= 8 ? 0x49 : 0x48);
      u8(0xb8 | (reg & 7));
      u64(value);
    }
  }
  void shift_right32(int reg, unsigned count) {
    register_op(0xc1, 5, reg, false);
    u8(count);
  }
  void and32(int reg, uint32_t value) {
    register_op(0x81, 4, reg, false);
    u32(value);
  }
  void and_page(int reg) {  // reg &= ~0xfff
    register_op(0x81, 4, reg, true);
    u32(0xffff'f000);
  }
  void rotate_right(int to, int from, unsigned count) {  // RORX: flags stay as they are
    u8(0xc4);
    u8((to >= 8 ? 0u : 0x80u) | 0x40 | (from >= 8 ? 0u : 0x20u) | 3);
    u8(0xfb);
    u8(0xf0);
    u8(0xc0 | static_cast<unsigned>(to & 7) << 3 | static_cast<unsigned>(from & 7));
    u8(count);
  }
  void zero_extend_byte(int reg) {  // movzx of its low byte; R8 to R15
    u8(0x45), u8(0x0f), u8(0xb6), u8(0xc0 | static_cast<unsigned>(reg & 7) * 9);
  }
  void compare(int reg, const Address& a) { memory_op(0x3b, reg, a, true); }
  void add(int reg, const Address& a) { memory_op(0x03, reg, a, true); }

  // jmp/jcc/call rel32 to a known executable address.
  void jump(const uint8_t* target) { relative(0xe9, target); }
  void call(const uint8_t* target) { relative(0xe8, target); }
  void jump_if(unsigned condition, const uint8_t* target) {
    u8(0x0f);
    relative(0x80 | condition, target);
  }
  // Returns the offset of the rel32, to be set by patch_to().
  size_t jump_later() {
    u8(0xe9);
    u32(0);
    return size() - 4;
  }
  size_t jump_if_later(unsigned condition) {
    u8(0x0f);
    u8(0x80 | condition);
    u32(0);
    return size() - 4;
  }
  void land(size_t rel32_offset) { patch_to(rel32_offset, size()); }
  void patch_to(size_t rel32_offset, size_t target_offset) {
    patch32(rel32_offset, static_cast<uint32_t>(target_offset - (rel32_offset + 4)));
  }
  void jump_if_to_offset(unsigned condition, size_t offset) {
    u8(0x0f);
    u8(0x80 | condition);
    u32(static_cast<uint32_t>(offset - (size() + 4)));
  }
  void jump_to_offset(size_t offset) {
    u8(0xe9);
    u32(static_cast<uint32_t>(offset - (size() + 4)));
  }
  // jrcxz to an address set later; returns the offset of the rel8.
  size_t jump_rcx_zero_later() { return short_later(0xe3); }
  size_t jump_short_if_later(unsigned condition) { return short_later(0x70 | condition); }
  size_t jump_short_later() { return short_later(0xeb); }
  void land8(size_t rel8_offset) { start_[rel8_offset] = static_cast<uint8_t>(size() - (rel8_offset + 1)); }

  void align(size_t boundary, size_t ahead) {  // so that size() + ahead is a multiple of boundary
    const size_t past = (reinterpret_cast<uintptr_t>(run_address()) + ahead) % boundary;
    for (size_t left = past == 0 ? 0 : boundary - past; left > 0;) {
      const size_t one = left < 3 ? left : 3;
      if (one == 3) u8(0x0f), u8(0x1f), u8(0x00);
      if (one == 2) u8(0x66), u8(0x90);
      if (one == 1) u8(0x90);
      left -= one;
    }
  }

  // So that the rel32 `ahead` lies in one aligned word of 8 bytes: it can be patched while others run through it.
  void align_rel32(size_t ahead) {
    if ((reinterpret_cast<uintptr_t>(run_address()) + ahead) % 8 > 4) align(8, ahead);
  }

 private:
  [[nodiscard]] Address resolved(const Address& a) const {
    if (!a.cpu) return a;
    const bool based = a.base != none;
    return {.base = rsp, .index = based ? a.base : a.index, .scale = based ? 1 : a.scale, .disp = a.disp + below_cpu_};
  }
  size_t short_later(unsigned opcode) {
    u8(opcode);
    u8(0);
    return size() - 1;
  }
  template <class T>
  void put(T value) {
    std::memcpy(at_, &value, sizeof value);
    at_ += sizeof value;
  }
  void relative(unsigned opcode, const uint8_t* target) {
    u8(opcode);
    u32(static_cast<uint32_t>(target - (run_address() + 4)));
  }

  uint8_t* start_;
  uint8_t* at_;
  uint8_t* run_;
  uint8_t* end_;
  int32_t below_cpu_ = 0;
};

}  // namespace caisson::jit
