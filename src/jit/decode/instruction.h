// One decoded guest instruction, in the form that interpreter and translator share; filled by decode().
//   Source   Intel SDM vol. 2, chapter 2; mnemonics are Zydis's (ZydisMnemonic)
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace caisson::jit {

enum class RegisterClass : uint8_t {
  None,
  Gpr,
  HighByte,
  Segment,
  Control,
  Debug,
  X87,
  Mmx,
  Xmm,
  Ymm,
  Zmm,
  Mask,
  Bound,
  Ip
};

struct Operand {
  enum class Kind : uint8_t { None, Register, Memory, Immediate, Relative, FarPointer };
  Kind kind = Kind::None;
  RegisterClass reg_class = RegisterClass::None;  // Register
  uint8_t reg = 0;                                // Register: number; HighByte: 0-3 for AH CH DH BH
  bool reads = false;
  bool writes = false;
  uint8_t field = 0;  // where it is encoded: ZydisOperandEncoding
  uint16_t bits =
      0;  // operand size in bits (memory: of the access; 0 where it has none, as in LEA or FXSAVE: see bytes)

  // Memory
  static constexpr uint8_t no_register = 0xff, rip_register = 0xfe;
  uint8_t base = no_register;   // gpr number, no_register or rip_register
  uint8_t index = no_register;  // gpr number; for VSIB the vector register number
  uint8_t scale = 0;            // 1 2 4 8 (0 without index)
  uint8_t segment = 3;          // x86::SegmentRegister in effect (default or override)
  bool vsib = false;
  uint16_t element_bits = 0;  // size of one vector element
  int64_t displacement = 0;   // Memory; for RIP-relative relative to the next instruction

  uint64_t immediate = 0;  // Immediate (sign-extended where the encoding says so); Relative: signed distance from the
                           // next instruction; FarPointer: the offset
  uint16_t far_selector = 0;

  bool operator==(const Operand&) const = default;
};

enum class Encoding : uint8_t { Legacy, Now3d, Xop, Vex, Evex };

struct Instruction {
  uint16_t mnemonic = 0;  // ZydisMnemonic
  uint8_t length = 0;
  Encoding encoding = Encoding::Legacy;
  uint8_t opcode_map = 0;  // 0 one-byte, 1 0F, 2 0F38, 3 0F3A, 5/6 EVEX maps, 8-10 XOP, 15 3DNow
  uint8_t opcode = 0;
  bool has_modrm = false;
  uint8_t modrm = 0;
  uint8_t rex = 0;           // REX byte or 0
  uint8_t operand_bits = 0;  // effective operand size 8 16 32 64
  uint8_t address_bits = 0;  // effective address size 16 32 64
  bool lock = false, rep = false, repne = false, has_operand_prefix = false;
  bool has_segment_override = false;
  uint8_t segment_override = 0xff;  // x86::SegmentRegister, where has_segment_override
  bool far_branch = false;          // JMP, CALL, RET to another code segment
  bool simd = false;                // x87, MMX, SSE, AVX… : runs on the FPU state, natively
  bool privileged_or_system = false;
  uint8_t category = 0;         // ZydisInstructionCategory
  uint8_t isa_set = 0;          // ZydisISASet (fits a byte in 4.0)
  uint8_t exception_class = 0;  // ZydisExceptionClass
  uint8_t modrm_offset = 0, displacement_offset = 0, displacement_size = 0, immediate_offset = 0,
          immediate_size = 0;  // bytes
  uint8_t opcode_offset = 0;   // of the last opcode byte
  uint8_t prefix_count = 0;    // legacy prefixes (REX counts as one)
  uint8_t operand_count = 0;   // visible operands
  uint32_t gpr_written = 0;    // general registers that it may change, implicitly too: one bit each
  // Arithmetic flags (RFLAGS bit positions): read; written or left undefined.
  uint32_t flags_read = 0, flags_written = 0, flags_undefined = 0;
  std::array<uint8_t, 15> bytes{};
  std::array<Operand, 5> operands{};  // (last: what is not there need not be copied)

  bool operator==(const Instruction&) const = default;

  // The memory operand, if there is an explicit one.
  [[nodiscard]] const Operand* memory() const {
    for (unsigned i = 0; i < operand_count; ++i) {
      if (operands[i].kind == Operand::Kind::Memory) return &operands[i];
    }
    return nullptr;
  }
};

enum class DecodeStatus : uint8_t {
  Ok,
  Truncated,  // more bytes needed (the instruction crosses the end of `code`)
  Invalid,    // #UD
  TooLong,    // over 15 bytes: #GP
};

// `code_bits`: 16, 32 or 64 (CS.L, CS.D).
[[nodiscard]] DecodeStatus decode(std::span<const uint8_t> code, unsigned code_bits, Instruction& out);

}  // namespace caisson::jit
