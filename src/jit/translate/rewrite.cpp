#include "jit/translate/rewrite.h"

#include <Zydis/Zydis.h>

namespace caisson::jit {
namespace {

// The register fields of an instruction after mapping.
struct Fields {
  int reg = 0;      // ModRM.reg with its extension bits as in the original, GPRs mapped
  int rm = 0;       // register in ModRM.rm
  int vvvv = -1;    // mapped GPR in VEX.vvvv, or -1: leave as it is
  int opcode = -1;  // register in the opcode's low bits, or -1
  bool high_byte = false;
};

Fields fields_of(const Instruction& in, const RegisterMap& map) {
  Fields fields;
  fields.reg = in.modrm >> 3 & 7;
  fields.rm = in.modrm & 7;
  bool reg_mapped = false, rm_mapped = false;
  for (unsigned i = 0; i < in.operand_count; ++i) {
    const Operand& operand = in.operands[i];
    if (operand.kind != Operand::Kind::Register) continue;
    if (operand.reg_class == RegisterClass::HighByte) fields.high_byte = true;
    if (operand.reg_class != RegisterClass::Gpr) continue;
    const int host = map[operand.reg & 15];
    switch (operand.field) {
      case ZYDIS_OPERAND_ENCODING_MODRM_REG: fields.reg = host, reg_mapped = true; break;
      case ZYDIS_OPERAND_ENCODING_MODRM_RM: fields.rm = host, rm_mapped = true; break;
      case ZYDIS_OPERAND_ENCODING_NDSNDD: fields.vvvv = host; break;
      case ZYDIS_OPERAND_ENCODING_OPCODE: fields.opcode = host; break;
      default: break;
    }
  }
  if (in.encoding == Encoding::Legacy) {
    if (!reg_mapped && (in.rex & 4)) fields.reg |= 8;
    if (!rm_mapped && (in.rex & 1)) fields.rm |= 8;
  }
  return fields;
}

void tail(Emitter& out, const Instruction& in, const Fields& fields, const Address* memory, bool wide_disp) {
  if (in.has_modrm) {
    if (memory != nullptr) {
      out.address(fields.reg, *memory, wide_disp);
    } else {
      out.u8(0xc0 | static_cast<unsigned>(fields.reg & 7) << 3 | static_cast<unsigned>(fields.rm & 7));
    }
  }
  if (in.immediate_size != 0) out.bytes(in.bytes.data() + in.immediate_offset, in.immediate_size);
}

bool rewrite_legacy(Emitter& out, const Instruction& in, const Fields& fields, const Address* memory) {
  unsigned rex = in.rex & 8;
  bool need = in.rex != 0;
  if (in.has_modrm && fields.reg >= 8) rex |= 4;
  if (memory != nullptr) {
    if (memory->index >= 8) rex |= 2;
    if (memory->base >= 8) rex |= 1;
  } else if (in.has_modrm && fields.rm >= 8) {
    rex |= 1;
  }
  if (fields.opcode >= 8) rex |= 1;
  need |= rex != 0;
  if (need && fields.high_byte) return false;
  // Prefixes that mean something still, in their order; REX last.
  const unsigned escape = in.opcode_map == 0 ? 0 : in.opcode_map == 1 ? 1 : 2;
  const unsigned opcode_at = in.opcode_offset;
  for (unsigned i = 0; i + escape < opcode_at; ++i) {
    const uint8_t byte = in.bytes[i];
    if (byte == 0x66 || byte == 0xf2 || byte == 0xf3 || byte == 0xf0) out.u8(byte);
  }
  if (memory != nullptr && memory->gs) out.u8(0x65);
  if (need) out.u8(0x40 | rex);
  for (unsigned i = 0; i < escape; ++i) out.u8(in.bytes[opcode_at - escape + i]);
  unsigned opcode = in.bytes[opcode_at];
  // What 64-bit code has no more: INC and DEC of one byte (now REX), and the second encoding of opcode 80.
  if (in.opcode_map == 0 && (opcode & 0xf0) == 0x40) {
    out.u8(0xff);
    out.u8(0xc0 | (opcode & 8) | static_cast<unsigned>(fields.opcode & 7));
    return true;
  }
  if (in.opcode_map == 0 && opcode == 0x82) opcode = 0x80;
  if (fields.opcode >= 0) opcode = (opcode & ~7u) | static_cast<unsigned>(fields.opcode & 7);
  out.u8(opcode);
  tail(out, in, fields, memory, false);
  return true;
}

bool rewrite_vex(Emitter& out, const Instruction& in, Fields fields, const Address* memory) {
  unsigned at = 0;
  while (in.bytes[at] != 0xc4 && in.bytes[at] != 0xc5) ++at;  // past segment prefixes
  unsigned p0, p1;
  if (in.bytes[at] == 0xc5) {
    p0 = (in.bytes[at + 1] & 0x80u) | 0x61;  // R; X and B inverted: set; map 0F
    p1 = in.bytes[at + 1] & 0x7fu;
  } else {
    p0 = in.bytes[at + 1];
    p1 = in.bytes[at + 2];
  }
  bool reg_is_gpr = false, rm_is_gpr = false;
  for (unsigned i = 0; i < in.operand_count; ++i) {
    const Operand& operand = in.operands[i];
    if (operand.kind != Operand::Kind::Register || operand.reg_class != RegisterClass::Gpr) continue;
    reg_is_gpr |= operand.field == ZYDIS_OPERAND_ENCODING_MODRM_REG;
    rm_is_gpr |= operand.field == ZYDIS_OPERAND_ENCODING_MODRM_RM;
  }
  if (reg_is_gpr) p0 = (p0 & ~0x80u) | (fields.reg >= 8 ? 0 : 0x80);
  if (memory != nullptr) {
    p0 = (p0 & ~0x60u) | (memory->index >= 8 ? 0 : 0x40) | (memory->base >= 8 ? 0 : 0x20);
  } else if (rm_is_gpr) {
    p0 = (p0 & ~0x60u) | 0x40 | (fields.rm >= 8 ? 0 : 0x20);
  }
  if (fields.vvvv >= 0) p1 = (p1 & ~0x78u) | static_cast<unsigned>(~fields.vvvv & 15) << 3;
  if (memory != nullptr && memory->gs) out.u8(0x65);
  out.u8(0xc4);
  out.u8(p0);
  out.u8(p1);
  out.u8(in.bytes[in.opcode_offset]);
  tail(out, in, fields, memory, false);
  return true;
}

bool rewrite_evex(Emitter& out, const Instruction& in, const Fields& fields, const Address* memory) {
  unsigned at = 0;
  while (in.bytes[at] != 0x62) ++at;
  unsigned p0 = in.bytes[at + 1];
  const unsigned p1 = in.bytes[at + 2];
  const unsigned p2 = in.bytes[at + 3];
  for (unsigned i = 0; i < in.operand_count; ++i) {
    const Operand& operand = in.operands[i];
    if (operand.kind != Operand::Kind::Register || operand.reg_class != RegisterClass::Gpr) continue;
    if (operand.field == ZYDIS_OPERAND_ENCODING_MODRM_REG) p0 = (p0 & ~0x90u) | 0x10 | (fields.reg >= 8 ? 0 : 0x80);
    if (operand.field == ZYDIS_OPERAND_ENCODING_MODRM_RM) p0 = (p0 & ~0x60u) | 0x40 | (fields.rm >= 8 ? 0 : 0x20);
  }
  if (memory != nullptr) p0 = (p0 & ~0x60u) | (memory->index >= 8 ? 0 : 0x40) | (memory->base >= 8 ? 0 : 0x20);
  if (memory != nullptr && memory->gs) out.u8(0x65);
  out.u8(0x62);
  out.u8(p0);
  out.u8(p1);
  out.u8(p2);
  out.u8(in.bytes[in.opcode_offset]);
  tail(out, in, fields, memory, true);
  return true;
}

}  // namespace

bool rewrite(Emitter& out, const Instruction& in, const RegisterMap& map, const Address* memory) {
  const Fields fields = fields_of(in, map);
  switch (in.encoding) {
    case Encoding::Legacy: return rewrite_legacy(out, in, fields, memory);
    case Encoding::Vex: return rewrite_vex(out, in, fields, memory);
    case Encoding::Evex: return rewrite_evex(out, in, fields, memory);
    default: return false;
  }
}

}  // namespace caisson::jit
