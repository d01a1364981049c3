// Decoded instructions by their shape: prefixes, opcode, ModRM and SIB, all that comes before displacement and
// immediate. Two instructions of one shape differ in those two values only, so the second is a copy of the first with
// other values. A tenth of the time that going through the decoder's tables takes, and programs repeat a few thousand
// shapes.
//   Source   Intel SDM vol. 2, 2.1 (instruction format), 2.3 (VEX); appendix A (which opcodes have ModRM)
//   Threads  one object, one thread
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "jit/decode/instruction.h"

namespace caisson::jit {

// The bytes up to displacement and immediate.
struct Shape {
  uint64_t key = 0;  // those bytes
  uint8_t size = 0;  // how many, 1 to 8; 0: a kind of instruction that is not kept
  uint8_t displacement_size = 0;

  // `bytes`: an instruction's first sixteen, zeros behind the end of what there is. `code_bits` as for decode().
  [[nodiscard]] static Shape of(std::span<const uint8_t, 16> bytes, unsigned code_bits);
};

class ShapeCache {
 public:
  // What decoding says beside the Instruction.
  struct Values {
    uint8_t displacements = 0;  // memory operands with one
    uint8_t immediates = 0;     // operands that are one
    bool immediate_signed = false;
    bool by_immediate = false;  // an operand is a register that the immediate names
  };

  // An instruction of this shape, with the values that stand in `code`: exactly what decode_by_tables() gives. False:
  // none is known, or its bytes are not all there.
  [[nodiscard]] bool find(const Shape& shape, std::span<const uint8_t> code, unsigned code_bits,
                          Instruction& out) const;
  // Notes `in`, decoded from bytes of this shape, where it is of a kind whose values can be exchanged.
  void put(const Shape& shape, unsigned code_bits, const Instruction& in, const Values& values);

 private:
  static constexpr unsigned index_bits = 12;
  struct Entry {  // all zero: empty
    uint64_t key;
    uint8_t size;
    uint8_t code_bits;
    uint8_t displacement;  // number of its operand + 1; 0: none
    uint8_t immediate;
    bool immediate_signed;
    Instruction instruction;
  };
  [[nodiscard]] static size_t index(uint64_t key) { return key * 0x9e37'79b9'7f4a'7c15 >> (64 - index_bits); }

  // Zeroed memory, of which pages are touched as they are needed.
  struct Free {
    void operator()(Entry* entries) const;
  };
  std::unique_ptr<Entry[], Free> entries_{allocate()};
  [[nodiscard]] static Entry* allocate();
};

// Without any memory of earlier ones. `values`: may be null.
[[nodiscard]] DecodeStatus decode_by_tables(std::span<const uint8_t> code, unsigned code_bits, Instruction& out,
                                            ShapeCache::Values* values);

}  // namespace caisson::jit
