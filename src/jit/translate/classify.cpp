#include "jit/translate/classify.h"

#include <Zydis/Zydis.h>

#include "x86/registers.h"

namespace caisson::jit {
namespace {

bool has_register_operand_of(const Instruction& in, RegisterClass reg_class) {
  for (unsigned i = 0; i < in.operand_count; ++i) {
    if (in.operands[i].kind == Operand::Kind::Register && in.operands[i].reg_class == reg_class) return true;
  }
  return false;
}

// SIMD and x87 instructions whose memory access is not one plain explicit operand, or that show host addresses.
bool simd_for_interpreter(const Instruction& in) {
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR: return true;
    default: break;
  }
  const Operand* memory = in.memory();
  return memory != nullptr && (memory->vsib || memory->bits == 0 || memory->bits > 512);
}

bool simd_allowed(const Instruction& in, ModeWord mode) {
  if (in.encoding == Encoding::Evex) return mode & mode_bits::avx512_ok;
  if (has_register_operand_of(in, RegisterClass::Mask)) return mode & mode_bits::avx512_ok;
  if (in.encoding == Encoding::Vex) return mode & mode_bits::avx_ok;
  if (in.encoding != Encoding::Legacy) return false;
  if (in.isa_set == ZYDIS_ISA_SET_X87 || in.isa_set == ZYDIS_ISA_SET_FCMOV || in.isa_set == ZYDIS_ISA_SET_PENTIUMMMX) {
    return mode & mode_bits::fpu_ok;
  }
  return mode & mode_bits::sse_ok;
}

Kind native_unless_odd(const Instruction& in) {
  const Operand* memory = in.memory();
  if (memory == nullptr) return Kind::Native;
  if (memory->bits == 0 || memory->bits % 8 != 0) return Kind::Interpret;
  return Kind::Native;
}

Kind classify_integer(const Instruction& in) {
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_XCHG:
    case ZYDIS_MNEMONIC_XADD:
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
    case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_MUL:
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_BSWAP:
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CWD:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO:
    case ZYDIS_MNEMONIC_MOVBE:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_ADCX:
    case ZYDIS_MNEMONIC_ADOX:
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BEXTR:
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSMSK:
    case ZYDIS_MNEMONIC_BLSR:
    case ZYDIS_MNEMONIC_BZHI:
    case ZYDIS_MNEMONIC_MULX:
    case ZYDIS_MNEMONIC_PDEP:
    case ZYDIS_MNEMONIC_PEXT:
    case ZYDIS_MNEMONIC_RORX:
    case ZYDIS_MNEMONIC_SARX:
    case ZYDIS_MNEMONIC_SHLX:
    case ZYDIS_MNEMONIC_SHRX:
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_CMC:
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_PAUSE: return in.mnemonic == ZYDIS_MNEMONIC_LEA ? Kind::Native : native_unless_odd(in);

    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
      // With a register offset the bit may lie anywhere before or behind the operand.
      if (in.memory() != nullptr && in.operands[1].kind == Operand::Kind::Register) {
        return in.operand_bits == 16 ? Kind::Interpret : Kind::BitTest;
      }
      return native_unless_odd(in);

    default: break;
  }
  if (in.category == ZYDIS_CATEGORY_CMOV || in.category == ZYDIS_CATEGORY_SETCC) return native_unless_odd(in);
  if (in.category == ZYDIS_CATEGORY_NOP || in.category == ZYDIS_CATEGORY_WIDENOP ||
      in.category == ZYDIS_CATEGORY_PREFETCH || in.category == ZYDIS_CATEGORY_PREFETCHWT1) {
    return Kind::Nothing;
  }
  return Kind::Interpret;
}

Kind classify_control(const Instruction& in, unsigned pointer_bits) {
  const Operand& first = in.operands[0];
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
      if (first.kind == Operand::Kind::Relative) return Kind::Jump;
      return first.bits == pointer_bits ? Kind::JumpIndirect : Kind::Interpret;
    case ZYDIS_MNEMONIC_CALL:
      if (first.kind == Operand::Kind::Relative) return Kind::Call;
      return first.bits == pointer_bits ? Kind::CallIndirect : Kind::Interpret;
    case ZYDIS_MNEMONIC_RET:
      return in.operand_bits == pointer_bits || pointer_bits == 64 ? Kind::Return : Kind::Interpret;
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ: return Kind::JumpRcx;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ: return Kind::Interpret;
    default: break;
  }
  return in.category == ZYDIS_CATEGORY_COND_BR && in.operand_count > 0 && first.kind == Operand::Kind::Relative
             ? Kind::JumpIf
             : Kind::Interpret;
}

}  // namespace

Kind classify(const Instruction& in, ModeWord mode) {
  const bool code_32 = mode & mode_bits::code_32;
  const unsigned pointer_bits = code_32 ? 32 : 64;
  if (const Operand* memory = in.memory()) {
    if (in.address_bits != pointer_bits) return Kind::Interpret;
    // Flat segments need no check; FS and GS have bases.
    if (code_32 && memory->segment >= x86::Fs && memory->bits == 0) return Kind::Interpret;
  }
  if (in.mnemonic == ZYDIS_MNEMONIC_LDMXCSR || in.mnemonic == ZYDIS_MNEMONIC_STMXCSR) {
    return mode & mode_bits::sse_ok ? native_unless_odd(in) : Kind::Interpret;
  }
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_CLI: return mode & mode_bits::cpl_0 ? Kind::ClearInterrupts : Kind::Interpret;
    case ZYDIS_MNEMONIC_STI: return mode & mode_bits::cpl_0 ? Kind::SetInterrupts : Kind::Interpret;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
      return (mode & mode_bits::cpl_0) && (mode & mode_bits::smap) ? Kind::AccessCheckFlag : Kind::Interpret;
    case ZYDIS_MNEMONIC_SWAPGS: return (mode & mode_bits::cpl_0) && !code_32 ? Kind::SwapGs : Kind::Interpret;
    case ZYDIS_MNEMONIC_CLD: return Kind::ClearDirection;
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE: return code_32 ? Kind::Interpret : Kind::System;
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ: return Kind::PushFlags;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP: return mode & mode_bits::tsd ? Kind::Interpret : Kind::ReadTime;
    case ZYDIS_MNEMONIC_SERIALIZE: return Kind::Nothing;  // a store to code ends the running block by itself
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSQ:
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
    case ZYDIS_MNEMONIC_MOVSD:
      if (in.simd) break;  // the SSE2 move of the same name
      return in.address_bits != (code_32 ? 32 : 64) || in.has_segment_override ? Kind::Interpret : Kind::String;
    default: break;
  }
  if (in.far_branch || in.privileged_or_system) return Kind::Interpret;
  if (in.simd) {
    if (simd_for_interpreter(in) || !simd_allowed(in, mode)) return Kind::Interpret;
    return Kind::Native;
  }
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
      if (in.operand_bits != pointer_bits) return Kind::Interpret;
      if (in.operands[0].kind == Operand::Kind::Immediate) return Kind::PushImmediate;
      if (in.operands[0].kind == Operand::Kind::Memory) return Kind::PushMemory;
      return in.operands[0].reg_class == RegisterClass::Gpr ? Kind::PushReg : Kind::Interpret;
    case ZYDIS_MNEMONIC_POP:
      return in.operand_bits == pointer_bits && in.operands[0].kind == Operand::Kind::Register &&
                     in.operands[0].reg_class == RegisterClass::Gpr
                 ? Kind::PopReg
                 : Kind::Interpret;
    case ZYDIS_MNEMONIC_LEAVE: return in.operand_bits == pointer_bits ? Kind::Leave : Kind::Interpret;
    default: break;
  }
  if (in.category == ZYDIS_CATEGORY_COND_BR || in.category == ZYDIS_CATEGORY_UNCOND_BR ||
      in.category == ZYDIS_CATEGORY_CALL || in.category == ZYDIS_CATEGORY_RET) {
    if (in.operand_bits == 16) return Kind::Interpret;
    return classify_control(in, pointer_bits);
  }
  return classify_integer(in);
}

// XCHG with memory locks by itself.
bool is_locked(const Instruction& in) {
  return in.lock || (in.mnemonic == ZYDIS_MNEMONIC_XCHG && in.memory() != nullptr);
}

bool left_to_interpreter(const Instruction& in, Kind kind, uint32_t off) {
  if (in.simd) {
    const bool avx = in.encoding != Encoding::Legacy || has_register_operand_of(in, RegisterClass::Mask);
    const bool x87 =
        in.isa_set == ZYDIS_ISA_SET_X87 || in.isa_set == ZYDIS_ISA_SET_FCMOV || in.isa_set == ZYDIS_ISA_SET_PENTIUMMMX;
    return off & (avx ? off::avx : x87 ? off::x87 : off::sse);
  }
  if (is_locked(in) && (off & off::atomic)) return true;
  switch (kind) {
    case Kind::String: return off & off::string;
    case Kind::PushFlags:
    case Kind::ReadTime: return off & (off::system | off::unrepeatable);
    case Kind::ClearInterrupts:
    case Kind::SetInterrupts:
    case Kind::SwapGs:
    case Kind::ClearDirection:
    case Kind::AccessCheckFlag:
    case Kind::System: return off & off::system;
    case Kind::Jump:
    case Kind::JumpIf:
    case Kind::JumpRcx:
    case Kind::Call:
    case Kind::JumpIndirect:
    case Kind::CallIndirect:
    case Kind::Return: return off & off::branch;
    default: return off & off::integer;
  }
}

FlagUse flag_use(const Instruction& in) {
  FlagUse use;
  use.reads = in.flags_read & all_status_flags;
  const uint32_t written = (in.flags_written | in.flags_undefined) & all_status_flags;
  use.touches = written != 0;
  use.overwrites = written;
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: {
      // A count of zero changes no flag; it may be in CL.
      const Operand& count = in.operands[in.operand_count - 1];
      const bool surely = count.kind == Operand::Kind::Immediate && (count.immediate & 0x1f) != 0;
      if (!surely) use.overwrites = 0;
      // Rotates touch CF and OF alone.
      if (in.mnemonic == ZYDIS_MNEMONIC_ROL || in.mnemonic == ZYDIS_MNEMONIC_ROR || in.mnemonic == ZYDIS_MNEMONIC_RCL ||
          in.mnemonic == ZYDIS_MNEMONIC_RCR) {
        use.overwrites &= 0x801;
      }
      break;
    }
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
      // A zero source leaves flags but ZF as some processors please: count only what is defined.
      use.overwrites = 0x40;
      break;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_SYSCALL: use.reads = all_status_flags; break;
    case ZYDIS_MNEMONIC_LAHF: use.reads = all_status_flags & 0xff; break;
    case ZYDIS_MNEMONIC_SAHF:
      use.overwrites = all_status_flags & 0xff;
      use.touches = true;
      break;
    default: break;
  }
  return use;
}

}  // namespace caisson::jit
