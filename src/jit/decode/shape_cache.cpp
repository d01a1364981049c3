#include "jit/decode/shape_cache.h"

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

namespace caisson::jit {
namespace {

// Opcodes with ModRM, of the one-byte map and of the map 0F; the other maps' all have one. (Vol. 2, tables.
// 62, 8F, C4 and C5 are dealt with apart.)
constexpr std::array<uint32_t, 8> one_byte_modrm = {
    0x0f0f'0f0f, 0x0f0f'0f0f,  // 00, 20: arithmetic in its first four forms
    0x0000'0000, 0x0000'0a08,  // 40; 60: MOVSXD, IMUL
    0x0000'ffff, 0x0000'0000,  // 80; A0
    0xff0f'00c3, 0xc0c0'0000,  // C0; E0
};
constexpr std::array<uint32_t, 8> two_byte_no_modrm = {
    0x0000'4be0, 0x00ff'0000,  // 05 SYSCALL to 0E; 30: WRMSR to GETSEC
    0x0000'0000, 0x0080'0000,  // 40; 77: EMMS
    0x0000'ffff, 0x0000'0707,  // 80: Jcc; A0: PUSH FS, CPUID, PUSH GS, RSM
    0x0000'ff00, 0x0000'0000,  // C8: BSWAP
};
constexpr bool has(const std::array<uint32_t, 8>& set, uint8_t opcode) { return set[opcode >> 5] >> (opcode & 31) & 1; }

constexpr uint8_t rex_low = 0x40, rex_high = 0x4f;

bool is_legacy_prefix(uint8_t byte) {
  switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3: return true;
    default: return false;
  }
}

}  // namespace

Shape Shape::of(std::span<const uint8_t, 16> bytes, unsigned code_bits) {
  constexpr size_t most = sizeof(Shape::key);
  if (code_bits == 16) return {};
  const bool long_mode = code_bits == 64;
  size_t at = 0;
  while (at < most && is_legacy_prefix(bytes[at])) {
    if (bytes[at] == 0x67 && !long_mode) return {};  // 16-bit addresses are encoded otherwise
    ++at;
  }
  if (long_mode && bytes[at] >= rex_low && bytes[at] <= rex_high) ++at;
  if (at >= most) return {};
  bool modrm = false;
  switch (const uint8_t opcode = bytes[at++]) {
    case 0x0f: {
      const uint8_t second = bytes[at++];
      if (second == 0x0f) return {};  // 3DNow!: its opcode comes last
      modrm = !has(two_byte_no_modrm, second);
      if (second == 0x38 || second == 0x3a) ++at;
      break;
    }
    case 0x62:  // EVEX: a displacement's unit depends on the rest
    case 0x8f:  // XOP, or POP
      return {};
    case 0xc4:
    case 0xc5: {
      if (!long_mode) return {};  // or LES, LDS
      const bool zeroes_registers = opcode == 0xc5 && bytes[at + 1] == 0x77;
      at += opcode == 0xc4 ? 3 : 2;
      modrm = !zeroes_registers;
      break;
    }
    default: modrm = has(one_byte_modrm, opcode); break;
  }
  Shape shape;
  if (modrm) {
    if (at >= most) return {};
    const uint8_t byte = bytes[at++];
    const unsigned mod = byte >> 6;
    unsigned base = byte & 7;
    if (mod != 3) {
      if (base == 4) {  // SIB
        if (at >= most) return {};
        base = bytes[at++] & 7;
      }
      // (Without SIB in 64-bit mode the base 5 of mod 0 is RIP.)
      shape.displacement_size = mod == 1 ? 1 : mod == 2 || base == 5 ? 4 : 0;
    }
  }
  if (at > most) return {};
  shape.size = static_cast<uint8_t>(at);
  std::memcpy(&shape.key, bytes.data(), sizeof shape.key);
  if (at < most) shape.key &= (uint64_t{1} << (8 * at)) - 1;
  return shape;
}

ShapeCache::Entry* ShapeCache::allocate() {
  void* memory = std::calloc(size_t{1} << index_bits, sizeof(Entry));
  if (memory == nullptr) throw std::bad_alloc{};
  return static_cast<Entry*>(memory);
}

void ShapeCache::Free::operator()(Entry* entries) const { std::free(entries); }

bool ShapeCache::find(const Shape& shape, std::span<const uint8_t> code, unsigned code_bits, Instruction& out) const {
  const Entry& entry = entries_[index(shape.key)];
  if (entry.key != shape.key || entry.size != shape.size || entry.code_bits != code_bits) return false;
  const Instruction& known = entry.instruction;
  if (known.length > code.size()) return false;
  static_assert(std::is_trivially_copyable_v<Instruction>);
  std::memcpy(static_cast<void*>(&out), &known,
              offsetof(Instruction, operands) + known.operand_count * sizeof(Operand));
  for (size_t i = known.operand_count; i < out.operands.size(); ++i) out.operands[i].kind = Operand::Kind::None;
  std::memcpy(out.bytes.data(), code.data(), known.length);
  if (entry.displacement != 0) {
    int32_t value = static_cast<int8_t>(code[known.displacement_offset]);
    if (known.displacement_size == 4) std::memcpy(&value, code.data() + known.displacement_offset, sizeof value);
    out.operands[entry.displacement - 1].displacement = value;
  }
  if (entry.immediate != 0) {
    uint64_t value = 0;
    std::memcpy(&value, code.data() + known.immediate_offset, known.immediate_size);
    if (entry.immediate_signed) {
      const unsigned unused = 64 - 8 * known.immediate_size;
      value = static_cast<uint64_t>(static_cast<int64_t>(value << unused) >> unused);
    }
    out.operands[entry.immediate - 1].immediate = value;
  }
  return true;
}

void ShapeCache::put(const Shape& shape, unsigned code_bits, const Instruction& in, const Values& values) {
  // What was decoded has the layout that its shape says (registers named by a ModRM whose mod does not matter have
  // not), and each value stands in one operand, or in none.
  if (values.by_immediate || values.displacements > 1 || values.immediates > 1) return;
  if (in.displacement_size != shape.displacement_size) return;
  if (in.length != shape.size + in.displacement_size + in.immediate_size) return;
  if (in.displacement_size != 0 && in.displacement_offset != shape.size) return;
  if (in.immediate_size != 0 && in.immediate_offset != shape.size + in.displacement_size) return;
  if (in.has_modrm ? in.modrm_offset >= shape.size : in.opcode_offset != shape.size - 1) return;
  Entry entry{.key = shape.key,
              .size = shape.size,
              .code_bits = static_cast<uint8_t>(code_bits),
              .displacement = 0,
              .immediate = 0,
              .immediate_signed = values.immediate_signed,
              .instruction = in};
  for (uint8_t i = 0; i < in.operand_count; ++i) {
    const Operand& operand = in.operands[i];
    if (operand.kind == Operand::Kind::FarPointer) return;
    const bool value = operand.kind == Operand::Kind::Immediate || operand.kind == Operand::Kind::Relative;
    if (operand.kind == Operand::Kind::Memory && in.displacement_size != 0) entry.displacement = i + 1;
    // (Shifts by one have an immediate that is not encoded.)
    if (value && in.immediate_size != 0) entry.immediate = i + 1;
  }
  entries_[index(shape.key)] = entry;
}

}  // namespace caisson::jit
