// Data movement without arithmetic: MOV, MOVZX, MOVSX, MOVSXD, LEA, BSWAP, MOVBE, XLAT, CMOVcc, SETcc, CBW … CQO,
// MOVNTI, and the instructions that do nothing.
//   Source   Intel SDM vol. 2
// MOV to and from segment, control and debug registers has the same mnemonic: dispatched here by operand class.
#include <bit>

#include "jit/interpret/control_registers.h"
#include "jit/interpret/interpreter.h"
#include "jit/interpret/operands.h"
#include "jit/interpret/segments.h"

namespace caisson::jit {
namespace {

template <class T>
bool mov(Step& step) {
  const Operand& destination = step.in.operands[0];
  const Operand& source = step.in.operands[1];
  if (destination.kind == Operand::Kind::Register) {
    if (destination.reg_class > RegisterClass::HighByte) [[unlikely]] {
      if (destination.reg_class == RegisterClass::Segment) return mov_to_segment(step);
      return destination.reg_class == RegisterClass::Control ? mov_to_control(step) : mov_to_debug(step);
    }
    if (source.kind == Operand::Kind::Register && source.reg_class > RegisterClass::HighByte) [[unlikely]] {
      if (source.reg_class == RegisterClass::Segment) return mov_from_segment(step);
      return source.reg_class == RegisterClass::Control ? mov_from_control(step) : mov_from_debug(step);
    }
    T value;
    if (!get<T>(step, source, value)) return false;
    set_register<T>(step.cpu, destination, value);
    return true;
  }
  if (source.kind == Operand::Kind::Register && source.reg_class == RegisterClass::Segment) [[unlikely]] {
    return mov_from_segment(step);
  }
  return store<T>(
      step, destination,
      source.kind == Operand::Kind::Register ? get_register<T>(step.cpu, source) : static_cast<T>(source.immediate));
}

template <class T>
bool movzx(Step& step) {
  const Operand& source = step.in.operands[1];
  T value;
  if (source.bits == 8) {
    uint8_t byte;
    if (!get(step, source, byte)) return false;
    value = byte;
  } else {
    uint16_t word;
    if (!get(step, source, word)) return false;
    value = static_cast<T>(word);
  }
  set_register<T>(step.cpu, step.in.operands[0], value);
  return true;
}

template <class T>
bool movsx(Step& step) {
  const Operand& source = step.in.operands[1];
  int64_t value;
  if (source.bits == 8) {
    uint8_t byte;
    if (!get(step, source, byte)) return false;
    value = static_cast<int8_t>(byte);
  } else if (source.bits == 16) {
    uint16_t word;
    if (!get(step, source, word)) return false;
    value = static_cast<int16_t>(word);
  } else {
    uint32_t dword;
    if (!get(step, source, dword)) return false;
    value = static_cast<int32_t>(dword);
  }
  set_register<T>(step.cpu, step.in.operands[0], static_cast<T>(value));
  return true;
}

template <class T>
bool lea(Step& step) {
  set_register<T>(step.cpu, step.in.operands[0], static_cast<T>(effective_offset(step, step.in.operands[1])));
  return true;
}

bool bswap(Step& step) {
  const Operand& operand = step.in.operands[0];
  uint64_t& reg = step.cpu.gpr[operand.reg];
  if (step.in.operand_bits == 64) {
    reg = __builtin_bswap64(reg);
  } else if (step.in.operand_bits == 32) {
    reg = __builtin_bswap32(static_cast<uint32_t>(reg));
  } else {
    reg &= ~uint64_t{0xffff};  // undefined; what CPUs do
  }
  return true;
}

template <class T>
bool movbe(Step& step) {
  if (!step.cpu.model->has(x86::Feature::Movbe)) return raise(step.cpu, x86::Ud);
  T value;
  if (!get<T>(step, step.in.operands[1], value)) return false;
  if constexpr (sizeof(T) == 8) {
    value = __builtin_bswap64(value);
  } else if constexpr (sizeof(T) == 4) {
    value = __builtin_bswap32(value);
  } else if constexpr (sizeof(T) == 2) {
    value = __builtin_bswap16(value);
  }
  return put<T>(step, step.in.operands[0], value);
}

bool xlat(Step& step) {
  Cpu& cpu = step.cpu;
  const unsigned segment = step.in.has_segment_override ? step.in.segment_override : unsigned{x86::Ds};
  const uint64_t offset = truncate(cpu.gpr[x86::Rbx] + (cpu.gpr[x86::Rax] & 0xff), step.in.address_bits);
  uint64_t linear;
  uint8_t value;
  if (!linear_address(step, segment, offset, 1, false, linear) || !mmu::read(cpu, linear, value)) return false;
  set_gpr<uint8_t>(cpu, x86::Rax, value);
  return true;
}

// The source is read (and may fault) whatever the condition; a 32-bit destination loses its upper half either way.
template <class T>
bool cmov(Step& step) {
  T value;
  if (!get<T>(step, step.in.operands[1], value)) return false;
  const Operand& destination = step.in.operands[0];
  if (!condition(step.in.opcode & 15, step.cpu.rflags)) value = get_register<T>(step.cpu, destination);
  set_register<T>(step.cpu, destination, value);
  return true;
}

bool setcc(Step& step) {
  return put<uint8_t>(step, step.in.operands[0], condition(step.in.opcode & 15, step.cpu.rflags));
}

bool cbw(Step& step) {
  set_gpr<uint16_t>(step.cpu, x86::Rax, static_cast<uint16_t>(static_cast<int8_t>(step.cpu.gpr[x86::Rax])));
  return true;
}

bool cwde(Step& step) {
  set_gpr<uint32_t>(step.cpu, x86::Rax, static_cast<uint32_t>(static_cast<int16_t>(step.cpu.gpr[x86::Rax])));
  return true;
}

bool cdqe(Step& step) {
  step.cpu.gpr[x86::Rax] = static_cast<uint64_t>(static_cast<int32_t>(step.cpu.gpr[x86::Rax]));
  return true;
}

template <class T>
bool sign_to_rdx(Step& step) {
  const bool negative = static_cast<T>(step.cpu.gpr[x86::Rax]) >> (sizeof(T) * 8 - 1);
  set_gpr<T>(step.cpu, x86::Rdx, negative ? static_cast<T>(~T{0}) : T{0});
  return true;
}

bool nothing(Step&) { return true; }

}  // namespace

bool condition(unsigned code, uint64_t rflags) {
  namespace rf = x86::rflags;
  bool result = false;
  switch (code >> 1 & 7) {
    case 0: result = rflags & rf::of; break;
    case 1: result = rflags & rf::cf; break;
    case 2: result = rflags & rf::zf; break;
    case 3: result = rflags & (rf::cf | rf::zf); break;
    case 4: result = rflags & rf::sf; break;
    case 5: result = rflags & rf::pf; break;
    case 6: result = (rflags >> 7 ^ rflags >> 11) & 1; break;
    default: result = ((rflags >> 7 ^ rflags >> 11) & 1) || (rflags & rf::zf); break;
  }
  return result != (code & 1);
}

void add_moves(HandlerTable& table) {
  table.sized({ZYDIS_MNEMONIC_MOV, ZYDIS_MNEMONIC_MOVNTI}, []<class T>() -> Handler { return mov<T>; });
  table.sized(ZYDIS_MNEMONIC_MOVZX, []<class T>() -> Handler { return movzx<T>; });
  table.sized({ZYDIS_MNEMONIC_MOVSX, ZYDIS_MNEMONIC_MOVSXD}, []<class T>() -> Handler { return movsx<T>; });
  table.sized(ZYDIS_MNEMONIC_LEA, []<class T>() -> Handler { return lea<T>; });
  table.sized(ZYDIS_MNEMONIC_MOVBE, []<class T>() -> Handler { return movbe<T>; });
  table.set(ZYDIS_MNEMONIC_BSWAP, bswap);
  table.set(ZYDIS_MNEMONIC_XLAT, xlat);
  table.sized({ZYDIS_MNEMONIC_CMOVB, ZYDIS_MNEMONIC_CMOVBE, ZYDIS_MNEMONIC_CMOVL, ZYDIS_MNEMONIC_CMOVLE,
               ZYDIS_MNEMONIC_CMOVNB, ZYDIS_MNEMONIC_CMOVNBE, ZYDIS_MNEMONIC_CMOVNL, ZYDIS_MNEMONIC_CMOVNLE,
               ZYDIS_MNEMONIC_CMOVNO, ZYDIS_MNEMONIC_CMOVNP, ZYDIS_MNEMONIC_CMOVNS, ZYDIS_MNEMONIC_CMOVNZ,
               ZYDIS_MNEMONIC_CMOVO, ZYDIS_MNEMONIC_CMOVP, ZYDIS_MNEMONIC_CMOVS, ZYDIS_MNEMONIC_CMOVZ},
              []<class T>() -> Handler { return cmov<T>; });
  table.set({ZYDIS_MNEMONIC_SETB, ZYDIS_MNEMONIC_SETBE, ZYDIS_MNEMONIC_SETL, ZYDIS_MNEMONIC_SETLE, ZYDIS_MNEMONIC_SETNB,
             ZYDIS_MNEMONIC_SETNBE, ZYDIS_MNEMONIC_SETNL, ZYDIS_MNEMONIC_SETNLE, ZYDIS_MNEMONIC_SETNO,
             ZYDIS_MNEMONIC_SETNP, ZYDIS_MNEMONIC_SETNS, ZYDIS_MNEMONIC_SETNZ, ZYDIS_MNEMONIC_SETO, ZYDIS_MNEMONIC_SETP,
             ZYDIS_MNEMONIC_SETS, ZYDIS_MNEMONIC_SETZ},
            setcc);
  table.set(ZYDIS_MNEMONIC_CBW, cbw);
  table.set(ZYDIS_MNEMONIC_CWDE, cwde);
  table.set(ZYDIS_MNEMONIC_CDQE, cdqe);
  table.set(ZYDIS_MNEMONIC_CWD, sign_to_rdx<uint16_t>);
  table.set(ZYDIS_MNEMONIC_CDQ, sign_to_rdx<uint32_t>);
  table.set(ZYDIS_MNEMONIC_CQO, sign_to_rdx<uint64_t>);
  table.set({ZYDIS_MNEMONIC_NOP, ZYDIS_MNEMONIC_PAUSE, ZYDIS_MNEMONIC_PREFETCH, ZYDIS_MNEMONIC_PREFETCHNTA,
             ZYDIS_MNEMONIC_PREFETCHT0, ZYDIS_MNEMONIC_PREFETCHT1, ZYDIS_MNEMONIC_PREFETCHT2, ZYDIS_MNEMONIC_PREFETCHW,
             ZYDIS_MNEMONIC_PREFETCHWT1, ZYDIS_MNEMONIC_SERIALIZE},
            nothing);
}

}  // namespace caisson::jit
