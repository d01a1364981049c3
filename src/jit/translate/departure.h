// How translated code is left where a block knows it beforehand: a call to Stubs::depart with a few bytes behind it, in
// place of the instructions that would set RIP and say why. Most such places are passed once, before a jump is chained,
// or never.
//   Form     uint16_t slot: bytes from the jump to be chained (its rel32) to these bytes, or 0; uint8_t bits;
//            the target: int32_t (user code: from the running page; else a linear address), or uint64_t with `wide`;
//            with Kind::System its system word, uint32_t
//   Threads  none of its own
#pragma once

#include <cstdint>
#include <cstring>

#include "jit/translate/emitter.h"

namespace caisson::jit {

struct Departure {
  enum class Kind : uint8_t { Dispatch, Interpret, System, Stale };
  Kind kind = Kind::Dispatch;
  bool flags_in_memory = false;              // the guest's status flags are in Cpu::flags_ax, and not in EFLAGS
  bool cross_page = false, careful = false;  // what the slot is, see slot bits in stubs.h
  uint64_t target = 0;
  uint64_t slot = 0;  // executable address of the rel32, or 0
  uint32_t word = 0;

  // `slot_offset`: of the rel32 in this emitter's code, or 0.
  void emit(Emitter& out, const uint8_t* stub, size_t slot_offset) const {
    out.call(stub);
    emit_bytes(out, slot_offset);
  }
  void emit_bytes(Emitter& out, size_t slot_offset) const {
    const bool wide = static_cast<int64_t>(target) != static_cast<int32_t>(target);
    const auto distance = static_cast<unsigned>(slot_offset == 0 ? 0 : out.size() - slot_offset);
    out.u8(distance & 0xff), out.u8(distance >> 8);
    out.u8(static_cast<unsigned>(kind) | (flags_in_memory ? flags_bit : 0) | (cross_page ? cross_page_bit : 0) |
           (careful ? careful_bit : 0) | (wide ? wide_bit : 0));
    if (wide) {
      out.u64(target);
    } else {
      out.u32(static_cast<uint32_t>(target));
    }
    if (kind == Kind::System) out.u32(word);
  }

  // `at`: executable address of the bytes. Returns their number.
  unsigned read(const uint8_t* at) {
    uint16_t distance;
    std::memcpy(&distance, at, 2);
    const uint8_t bits = at[2];
    kind = static_cast<Kind>(bits & 3);
    flags_in_memory = bits & flags_bit;
    cross_page = bits & cross_page_bit;
    careful = bits & careful_bit;
    slot = distance == 0 ? 0 : reinterpret_cast<uint64_t>(at) - distance;
    unsigned size = 3;
    if (bits & wide_bit) {
      std::memcpy(&target, at + size, 8);
      size += 8;
    } else {
      int32_t narrow;
      std::memcpy(&narrow, at + size, 4);
      target = static_cast<uint64_t>(int64_t{narrow});
      size += 4;
    }
    if (kind == Kind::System) {
      std::memcpy(&word, at + size, 4);
      size += 4;
    }
    return size;
  }

 private:
  static constexpr unsigned flags_bit = 4, cross_page_bit = 8, careful_bit = 16, wide_bit = 32;
};

// Behind the call to Stubs::lookup_miss of a branch to an address in a register or in memory: enough to take it back,
// for a target that is not canonical faults before the branch is done (vol. 2, CALL, JMP, RET).
struct IndirectBranch {
  static constexpr unsigned size = 6;  // uint16_t guest_offset, int32_t undo
  uint16_t guest_offset = 0;           // of the instruction in its block
  int32_t undo = 0;                    // what to add to RSP

  void emit(Emitter& out, const uint8_t* stub) const {
    out.call(stub);
    out.u8(guest_offset & 0xff), out.u8(guest_offset >> 8);
    out.u32(static_cast<uint32_t>(undo));
  }
  void read(const uint8_t* at) {
    std::memcpy(&guest_offset, at, 2);
    std::memcpy(&undo, at + 2, 4);
  }
};

}  // namespace caisson::jit
