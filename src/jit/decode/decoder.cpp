// Guest instruction decoding: Zydis does the tables, this file gives its answer the form that the engine works on.
//   Source   Intel SDM vol. 2, chapter 2
//   Threads  any; the decoders are immutable
// Extensions that no model offers and that hardware without them executes as NOPs (MPX, CET, CLDEMOTE) are decoded as
// NOPs.
#include <Zydis/Zydis.h>

#include <algorithm>
#include <cstring>

#include "jit/decode/instruction.h"
#include "jit/decode/shape_cache.h"
#include "x86/registers.h"

namespace caisson::jit {
namespace {

struct Decoders {
  ZydisDecoder bits16, bits32, bits64;

  Decoders() {
    init(bits16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    init(bits32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    init(bits64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  }

  static void init(ZydisDecoder& decoder, ZydisMachineMode mode, ZydisStackWidth stack) {
    ZydisDecoderInit(&decoder, mode, stack);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
  }
};

const Decoders& decoders() {
  static const Decoders instance;
  return instance;
}

struct RegisterName {
  RegisterClass reg_class = RegisterClass::None;
  uint8_t number = 0;
};

constexpr std::array<RegisterName, ZYDIS_REGISTER_MAX_VALUE + 1> make_register_names() {
  std::array<RegisterName, ZYDIS_REGISTER_MAX_VALUE + 1> names{};
  const auto range = [&](int first, int last, RegisterClass reg_class, int number = 0) {
    for (int r = first; r <= last; ++r) {
      names[static_cast<size_t>(r)] = {reg_class, static_cast<uint8_t>(number + r - first)};
    }
  };
  range(ZYDIS_REGISTER_AL, ZYDIS_REGISTER_BL, RegisterClass::Gpr);
  range(ZYDIS_REGISTER_AH, ZYDIS_REGISTER_BH, RegisterClass::HighByte);
  range(ZYDIS_REGISTER_SPL, ZYDIS_REGISTER_R15B, RegisterClass::Gpr, x86::Rsp);
  range(ZYDIS_REGISTER_AX, ZYDIS_REGISTER_R15W, RegisterClass::Gpr);
  range(ZYDIS_REGISTER_EAX, ZYDIS_REGISTER_R15D, RegisterClass::Gpr);
  range(ZYDIS_REGISTER_RAX, ZYDIS_REGISTER_R15, RegisterClass::Gpr);
  range(ZYDIS_REGISTER_ST0, ZYDIS_REGISTER_ST7, RegisterClass::X87);
  range(ZYDIS_REGISTER_MM0, ZYDIS_REGISTER_MM7, RegisterClass::Mmx);
  range(ZYDIS_REGISTER_XMM0, ZYDIS_REGISTER_XMM31, RegisterClass::Xmm);
  range(ZYDIS_REGISTER_YMM0, ZYDIS_REGISTER_YMM31, RegisterClass::Ymm);
  range(ZYDIS_REGISTER_ZMM0, ZYDIS_REGISTER_ZMM31, RegisterClass::Zmm);
  range(ZYDIS_REGISTER_IP, ZYDIS_REGISTER_RIP, RegisterClass::Ip);
  range(ZYDIS_REGISTER_ES, ZYDIS_REGISTER_GS, RegisterClass::Segment);
  range(ZYDIS_REGISTER_CR0, ZYDIS_REGISTER_CR15, RegisterClass::Control);
  range(ZYDIS_REGISTER_DR0, ZYDIS_REGISTER_DR15, RegisterClass::Debug);
  range(ZYDIS_REGISTER_K0, ZYDIS_REGISTER_K7, RegisterClass::Mask);
  range(ZYDIS_REGISTER_BND0, ZYDIS_REGISTER_BND3, RegisterClass::Bound);
  names[ZYDIS_REGISTER_IP].number = names[ZYDIS_REGISTER_EIP].number = names[ZYDIS_REGISTER_RIP].number = 0;
  return names;
}

constexpr auto register_names = make_register_names();

// Instruction sets whose instructions work on x87, MMX, vector or mask registers.
constexpr std::array<bool, ZYDIS_ISA_SET_MAX_VALUE + 1> make_simd_sets() {
  std::array<bool, ZYDIS_ISA_SET_MAX_VALUE + 1> sets{};
  for (int set = ZYDIS_ISA_SET_AVX; set <= ZYDIS_ISA_SET_AVX_VNNI; ++set) sets[static_cast<size_t>(set)] = true;
  for (const int set : {ZYDIS_ISA_SET_AES,      ZYDIS_ISA_SET_F16C,      ZYDIS_ISA_SET_FCMOV,      ZYDIS_ISA_SET_FMA,
                        ZYDIS_ISA_SET_GFNI,     ZYDIS_ISA_SET_PCLMULQDQ, ZYDIS_ISA_SET_PENTIUMMMX, ZYDIS_ISA_SET_SHA,
                        ZYDIS_ISA_SET_SSE,      ZYDIS_ISA_SET_SSE2,      ZYDIS_ISA_SET_SSE2MMX,    ZYDIS_ISA_SET_SSE3,
                        ZYDIS_ISA_SET_SSE3X87,  ZYDIS_ISA_SET_SSE4,      ZYDIS_ISA_SET_SSE42,      ZYDIS_ISA_SET_SSSE3,
                        ZYDIS_ISA_SET_SSSE3MMX, ZYDIS_ISA_SET_VAES,      ZYDIS_ISA_SET_VPCLMULQDQ, ZYDIS_ISA_SET_X87}) {
    sets[static_cast<size_t>(set)] = true;
  }
  return sets;
}

constexpr auto simd_sets = make_simd_sets();

bool is_simd(const ZydisDecodedInstruction& in) {
  // FCOMI and its kin are of the Pentium Pro's set.
  if (in.meta.category == ZYDIS_CATEGORY_X87_ALU) return true;
  if (!simd_sets[in.meta.isa_set]) return false;
  switch (in.mnemonic) {  // integer instructions of SSE's sets
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2: return false;
    default: return true;
  }
}

bool is_system(const ZydisDecodedInstruction& in) {
  if (in.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) return true;
  switch (in.meta.category) {
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_SMAP:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_VTX:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
    case ZYDIS_CATEGORY_RDPID:
    case ZYDIS_CATEGORY_SGX: return true;
    default: break;
  }
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR: return true;
    default: return in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
  }
}

constexpr uint8_t map_number(ZydisOpcodeMap map) {
  switch (map) {
    case ZYDIS_OPCODE_MAP_DEFAULT: return 0;
    case ZYDIS_OPCODE_MAP_0F: return 1;
    case ZYDIS_OPCODE_MAP_0F38: return 2;
    case ZYDIS_OPCODE_MAP_0F3A: return 3;
    case ZYDIS_OPCODE_MAP_MAP4: return 4;
    case ZYDIS_OPCODE_MAP_MAP5: return 5;
    case ZYDIS_OPCODE_MAP_MAP6: return 6;
    case ZYDIS_OPCODE_MAP_MAP7: return 7;
    case ZYDIS_OPCODE_MAP_XOP8: return 8;
    case ZYDIS_OPCODE_MAP_XOP9: return 9;
    case ZYDIS_OPCODE_MAP_XOPA: return 10;
    case ZYDIS_OPCODE_MAP_0F0F: return 15;
  }
  return 0;
}

uint8_t gpr_or_none(ZydisRegister name) {
  if (name == ZYDIS_REGISTER_NONE) return Operand::no_register;
  const RegisterName reg = register_names[name];
  return reg.reg_class == RegisterClass::Ip ? Operand::rip_register : reg.number;
}

void fill_operand(const ZydisDecodedOperand& in, Operand& out) {
  out = Operand{};
  out.reads = in.actions & ZYDIS_OPERAND_ACTION_MASK_READ;
  out.writes = in.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
  out.bits = in.size;
  out.field = static_cast<uint8_t>(in.encoding);
  out.element_bits = in.element_size;
  switch (in.type) {
    case ZYDIS_OPERAND_TYPE_REGISTER: {
      const RegisterName reg = register_names[in.reg.value];
      out.kind = Operand::Kind::Register;
      out.reg_class = reg.reg_class;
      out.reg = reg.number;
      break;
    }
    case ZYDIS_OPERAND_TYPE_MEMORY: {
      out.kind = Operand::Kind::Memory;
      out.base = gpr_or_none(in.mem.base);
      out.index = gpr_or_none(in.mem.index);
      out.scale = in.mem.index == ZYDIS_REGISTER_NONE ? uint8_t{0} : std::max<uint8_t>(in.mem.scale, 1);
      out.vsib = in.mem.type == ZYDIS_MEMOP_TYPE_VSIB;
      out.displacement = in.mem.disp.has_displacement ? in.mem.disp.value : 0;
      const RegisterName segment = register_names[in.mem.segment];
      out.segment = segment.reg_class == RegisterClass::Segment ? segment.number : uint8_t{x86::Ds};
      if (in.mem.type == ZYDIS_MEMOP_TYPE_AGEN) out.bits = 0;
      break;
    }
    case ZYDIS_OPERAND_TYPE_POINTER:
      out.kind = Operand::Kind::FarPointer;
      out.immediate = in.ptr.offset;
      out.far_selector = in.ptr.segment;
      break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
      out.kind = in.imm.is_relative ? Operand::Kind::Relative : Operand::Kind::Immediate;
      out.immediate = in.imm.value.u;
      break;
    default: break;
  }
}

void fill_prefixes(const ZydisDecodedInstruction& in, unsigned code_bits, Instruction& out) {
  out.lock = out.rep = out.repne = out.has_operand_prefix = out.has_segment_override = false;
  out.segment_override = 0xff;
  const auto segment = [&](uint8_t number) {
    if (code_bits == 64 && number < x86::Fs) return;  // vol. 2, 2.1.1: ignored in 64-bit mode
    out.has_segment_override = true;
    out.segment_override = number;
  };
  for (unsigned i = 0; i < in.raw.prefix_count; ++i) {
    const auto& prefix = in.raw.prefixes[i];
    switch (prefix.value) {
      case 0xf0: out.lock = true; break;
      case 0xf2:
      case 0xf3:
        // Zydis calls REP of a string instruction mandatory, too; real mandatory prefixes select among two-byte
        // opcodes.
        if (prefix.type == ZYDIS_PREFIX_TYPE_MANDATORY && in.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) break;
        out.rep = prefix.value == 0xf3;
        out.repne = prefix.value == 0xf2;
        break;
      case 0x66: out.has_operand_prefix = true; break;
      case 0x26: segment(x86::Es); break;
      case 0x2e: segment(x86::Cs); break;
      case 0x36: segment(x86::Ss); break;
      case 0x3e: segment(x86::Ds); break;
      case 0x64: segment(x86::Fs); break;
      case 0x65: segment(x86::Gs); break;
      default: break;
    }
  }
}

ShapeCache::Values values_of(const ZydisDecodedInstruction& in, std::span<const ZydisDecodedOperand> operands) {
  ShapeCache::Values values;
  values.immediate_signed = in.raw.imm[0].is_signed;
  for (const ZydisDecodedOperand& operand : operands) {
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY && operand.mem.disp.has_displacement) ++values.displacements;
    if (operand.encoding == ZYDIS_OPERAND_ENCODING_IS4) values.by_immediate = true;
    // An immediate that is not encoded (shifts by one) is no value to exchange.
    if (operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && in.raw.imm[0].size != 0) ++values.immediates;
  }
  return values;
}

}  // namespace

DecodeStatus decode_by_tables(std::span<const uint8_t> code, unsigned code_bits, Instruction& out,
                              ShapeCache::Values* values) {
  const Decoders& all = decoders();
  const ZydisDecoder& decoder = code_bits == 64 ? all.bits64 : code_bits == 32 ? all.bits32 : all.bits16;
  ZydisDecoderContext context;
  ZydisDecodedInstruction in;
  const ZyanStatus status = ZydisDecoderDecodeInstruction(&decoder, &context, code.data(), code.size(), &in);
  if (!ZYAN_SUCCESS(status)) {
    if (status == ZYDIS_STATUS_NO_MORE_DATA) return DecodeStatus::Truncated;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG) return DecodeStatus::TooLong;
    return DecodeStatus::Invalid;
  }

  out.mnemonic = static_cast<uint16_t>(in.mnemonic);
  out.length = in.length;
  switch (in.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_3DNOW: out.encoding = Encoding::Now3d; break;
    case ZYDIS_INSTRUCTION_ENCODING_XOP: out.encoding = Encoding::Xop; break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX: out.encoding = Encoding::Vex; break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX: out.encoding = Encoding::Evex; break;
    default: out.encoding = Encoding::Legacy; break;
  }
  out.opcode_map = map_number(in.opcode_map);
  out.opcode = in.opcode;
  out.has_modrm = in.attributes & ZYDIS_ATTRIB_HAS_MODRM;
  out.modrm = out.has_modrm ? code[in.raw.modrm.offset] : uint8_t{0};
  out.modrm_offset = out.has_modrm ? in.raw.modrm.offset : uint8_t{0};
  out.rex = in.attributes & ZYDIS_ATTRIB_HAS_REX ? code[in.raw.rex.offset] : uint8_t{0};
  out.operand_bits = in.operand_width;
  out.address_bits = in.address_width;
  fill_prefixes(in, code_bits, out);
  out.simd = is_simd(in);
  out.privileged_or_system = is_system(in);
  out.far_branch = in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
  out.category = static_cast<uint8_t>(in.meta.category);
  static_assert(ZYDIS_ISA_SET_MAX_VALUE < 256 && ZYDIS_CATEGORY_MAX_VALUE < 256);
  out.isa_set = static_cast<uint8_t>(in.meta.isa_set);
  out.exception_class = static_cast<uint8_t>(in.meta.exception_class);
  out.displacement_offset = in.raw.disp.size ? in.raw.disp.offset : uint8_t{0};
  out.displacement_size = in.raw.disp.size / 8;
  out.immediate_offset = in.raw.imm[0].size ? in.raw.imm[0].offset : uint8_t{0};
  out.immediate_size = static_cast<uint8_t>((in.raw.imm[0].size + in.raw.imm[1].size) / 8);
  out.prefix_count = in.raw.prefix_count;
  if (out.encoding == Encoding::Now3d) {
    out.opcode_offset = in.length - 1;
  } else if (out.has_modrm) {
    out.opcode_offset = out.modrm_offset - 1;
  } else if (out.immediate_size) {
    out.opcode_offset = out.immediate_offset - 1;
  } else if (out.displacement_size) {
    out.opcode_offset = out.displacement_offset - 1;
  } else {
    out.opcode_offset = in.length - 1;
  }

  out.flags_read = out.flags_written = out.flags_undefined = 0;
  if (in.cpu_flags) {
    out.flags_read = in.cpu_flags->tested;
    out.flags_written = in.cpu_flags->modified | in.cpu_flags->set_0 | in.cpu_flags->set_1;
    out.flags_undefined = in.cpu_flags->undefined;
  }

  const uint8_t count = std::min<uint8_t>(in.operand_count_visible, static_cast<uint8_t>(out.operands.size()));
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
  if (in.operand_count &&
      !ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&decoder, &context, &in, operands.data(), in.operand_count))) {
    return DecodeStatus::Invalid;
  }
  out.gpr_written = 0;
  for (unsigned i = 0; i < in.operand_count; ++i) {
    if (operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER || !(operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
      continue;
    const RegisterName written = register_names[operands[i].reg.value];
    if (written.reg_class == RegisterClass::Gpr) out.gpr_written |= 1u << written.number;
    if (written.reg_class == RegisterClass::HighByte) out.gpr_written |= 1u << (written.number & 3);
  }
  out.operand_count = count;
  for (unsigned i = 0; i < count; ++i) {
    fill_operand(operands[i], out.operands[i]);
    if (out.operands[i].reg_class == RegisterClass::Segment) out.privileged_or_system = true;
    // Zydis 4.0 takes SIB base 5 without displacement form for R13D under an address-size prefix.
    if (out.operands[i].base == x86::R13 && (in.attributes & ZYDIS_ATTRIB_HAS_SIB) && in.raw.modrm.mod == 0) {
      out.operands[i].base = Operand::no_register;
      out.operands[i].displacement = in.raw.disp.value;
    }
  }
  for (unsigned i = count; i < out.operands.size(); ++i) out.operands[i].kind = Operand::Kind::None;
  out.bytes = {};
  std::memcpy(out.bytes.data(), code.data(), in.length);
  if (values != nullptr) *values = values_of(in, std::span{operands}.first(in.operand_count));
  return DecodeStatus::Ok;
}

DecodeStatus decode(std::span<const uint8_t> code, unsigned code_bits, Instruction& out) {
  // One for each thread that decodes: a machine's CPUs.
  thread_local ShapeCache cache;
  std::array<uint8_t, 16> first{};
  std::memcpy(first.data(), code.data(), std::min(code.size(), first.size()));
  const Shape shape = Shape::of(first, code_bits);
  if (shape.size != 0 && cache.find(shape, code, code_bits, out)) return DecodeStatus::Ok;
  ShapeCache::Values values;
  const DecodeStatus status = decode_by_tables(code, code_bits, out, &values);
  if (status == DecodeStatus::Ok && shape.size != 0) cache.put(shape, code_bits, out, values);
  return status;
}

}  // namespace caisson::jit
