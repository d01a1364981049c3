// x87, MMX and vector instructions: checks, then the host CPU does the work, with the memory operand resolved to guest
// RAM or to a copy of it.
//   Source   Intel SDM vol. 2, 2.8 (memory faults of masked elements), vol. 1, 8.1.8 (x87 pointers)
// Where masked-out elements must not fault, a load that fails as a whole is done again element by element; what a
// masked store writes shows in two runs on buffers of different content.
#include "jit/interpret/simd.h"

#include <algorithm>
#include <bit>

#include "jit/fpu.h"
#include "jit/interpret/fpu_state.h"
#include "jit/interpret/gather.h"
#include "jit/interpret/native_thunk.h"
#include "jit/interpret/operands.h"
#include "jit/interpret/simd_features.h"

#include <Zydis/DecoderTypes.h>

namespace caisson::jit {
namespace {

using namespace x86;

// A copy of a memory operand at the guest's alignment, so that the host CPU checks it.
class Bounce {
 public:
  explicit Bounce(uint64_t linear) : at_(buffer_.data() + (linear & 63)) {}
  [[nodiscard]] uint8_t* data() const { return at_; }

 private:
  alignas(64) std::array<uint8_t, 256> buffer_{};
  uint8_t* at_;
};
constexpr unsigned largest_operand = 128;

bool is_environment(uint16_t mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_FNSTENV || mnemonic == ZYDIS_MNEMONIC_FLDENV || mnemonic == ZYDIS_MNEMONIC_FNSAVE ||
         mnemonic == ZYDIS_MNEMONIC_FRSTOR;
}

bool stores_environment(uint16_t mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_FNSTENV || mnemonic == ZYDIS_MNEMONIC_FNSAVE;
}

bool is_masked_move(uint16_t mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS || mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD ||
         mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD || mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ;
}

bool is_byte_masked_store(uint16_t mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
         mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

bool is_expand(uint16_t mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_VEXPANDPS || mnemonic == ZYDIS_MNEMONIC_VEXPANDPD ||
         mnemonic == ZYDIS_MNEMONIC_VPEXPANDB || mnemonic == ZYDIS_MNEMONIC_VPEXPANDW ||
         mnemonic == ZYDIS_MNEMONIC_VPEXPANDD || mnemonic == ZYDIS_MNEMONIC_VPEXPANDQ;
}

bool is_compress(uint16_t mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_VCOMPRESSPS || mnemonic == ZYDIS_MNEMONIC_VCOMPRESSPD ||
         mnemonic == ZYDIS_MNEMONIC_VPCOMPRESSB || mnemonic == ZYDIS_MNEMONIC_VPCOMPRESSW ||
         mnemonic == ZYDIS_MNEMONIC_VPCOMPRESSD || mnemonic == ZYDIS_MNEMONIC_VPCOMPRESSQ;
}

bool is_x87(const Instruction& in) { return in.opcode_map == 0 && in.opcode >= 0xd8 && in.opcode <= 0xdf; }

// An unmasked x87 exception waits for the next instruction that looks: #MF goes before the memory faults of that one.
bool x87_exception_pending(Cpu& cpu) {
  fpu_put_away(cpu);
  uint16_t control, status;
  std::memcpy(&control, cpu.xsave.data(), 2);
  std::memcpy(&status, cpu.xsave.data() + 2, 2);
  return status & ~control & 0x3f;
}

bool touches_mmx(const Instruction& in) {
  return std::any_of(in.operands.begin(), in.operands.begin() + in.operand_count,
                     [](const Operand& operand) { return operand.reg_class == RegisterClass::Mmx; });
}

// Number of the opmask register that masks an EVEX instruction; 0: none.
unsigned write_mask_register(const Instruction& in) {
  return in.encoding == Encoding::Evex ? in.bytes[in.opcode_offset - 1u] & 7u : 0;
}

unsigned operand_size(const Instruction& in, const Operand& memory) {
  if (!is_environment(in.mnemonic)) return memory.bits / 8;
  const bool whole = in.mnemonic == ZYDIS_MNEMONIC_FNSAVE || in.mnemonic == ZYDIS_MNEMONIC_FRSTOR;
  return (in.operand_bits == 16 ? 14 : 28) + (whole ? 80 : 0);
}

// Vol. 2, 2.4 and 2.8: a misaligned operand is #GP before any other fault. What this leaves out the host CPU finds.
bool requires_alignment(const Instruction& in, unsigned size) {
  if (in.mnemonic == ZYDIS_MNEMONIC_CVTPD2PI || in.mnemonic == ZYDIS_MNEMONIC_CVTTPD2PI) return true;
  switch (in.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF: return true;
    case ZYDIS_EXCEPTION_CLASS_SSE1:
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE4: break;
    default: return false;
  }
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
    // Intel's processors want the SHA instructions' operands aligned, AMD's do not: the host decides.
    case ZYDIS_MNEMONIC_SHA1MSG1:
    case ZYDIS_MNEMONIC_SHA1MSG2:
    case ZYDIS_MNEMONIC_SHA1NEXTE:
    case ZYDIS_MNEMONIC_SHA1RNDS4:
    case ZYDIS_MNEMONIC_SHA256MSG1:
    case ZYDIS_MNEMONIC_SHA256MSG2:
    case ZYDIS_MNEMONIC_SHA256RNDS2: return false;
    default: return size == 16;
  }
}

// The host's exception as the guest's.
bool raise_native(Cpu& cpu, int vector) {
  switch (vector) {
    case Mf: return raise(cpu, Mf);
    case Xm: return cpu.cr4 & cr4::osxmmexcpt ? raise(cpu, Xm) : raise(cpu, Ud);
    case Ud: return raise(cpu, Ud);
    default: return raise(cpu, Gp, 0);  // alignment, reserved bits of control words
  }
}

// Linear address without checks.
uint64_t raw_address(const Step& step, const Operand& memory) {
  const bool flat = step.cpu.code_bits == 64 && memory.segment < Fs;
  return effective_offset(step, memory) + (flat ? 0 : step.cpu.segments[memory.segment].base);
}

// Of some bytes within a memory operand, with checks.
bool part_address(Step& step, const Operand& memory, unsigned at, unsigned size, bool write, uint64_t& linear) {
  const uint64_t offset = truncate(effective_offset(step, memory) + at, step.in.address_bits);
  return linear_address(step, memory.segment, offset, size, write, linear);
}

// Runs the instruction with the operand at `memory`; registers and flags follow only if it completes.
bool execute(Step& step, NativeCode code, const void* memory) {
  Cpu& cpu = step.cpu;
  const Operand* general = nullptr;
  for (unsigned i = 0; i < step.in.operand_count; ++i) {
    const Operand& operand = step.in.operands[i];
    if (operand.reg_class == RegisterClass::Gpr &&
        (operand.field == ZYDIS_OPERAND_ENCODING_MODRM_REG || operand.field == ZYDIS_OPERAND_ENCODING_MODRM_RM))
      general = &operand;
  }
  NativeBlock block{.rax = cpu.gpr[Rax],
                    .rcx = cpu.gpr[Rcx],
                    .rdx = cpu.gpr[Rdx],
                    .general = general != nullptr ? cpu.gpr[general->reg] : 0,
                    .memory = memory,
                    .flags = (cpu.rflags & rflags::status) | rflags::fixed};
  const int raised = run_native(cpu, code, block);
  if (raised != native_completed) return raise_native(cpu, raised);
  cpu.gpr[Rax] = block.rax;
  cpu.gpr[Rcx] = block.rcx;
  cpu.gpr[Rdx] = block.rdx;
  if (general != nullptr && general->writes) cpu.gpr[general->reg] = block.general;
  cpu.rflags = (cpu.rflags & ~rflags::status) | (block.flags & rflags::status);
  return true;
}

// --- loads -----------------------------------------------------------------------------------------------------------

bool suppresses_faults(const Instruction& in) {
  // The mask's elements are not those of the memory operand (matrices, blocks of bytes): E4NF.
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VDBPSADBW: return false;
    default: break;
  }
  switch (in.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E2:
    case ZYDIS_EXCEPTION_CLASS_E3:
    case ZYDIS_EXCEPTION_CLASS_E4:
    case ZYDIS_EXCEPTION_CLASS_E5:
    case ZYDIS_EXCEPTION_CLASS_E6:
    case ZYDIS_EXCEPTION_CLASS_E10:
    case ZYDIS_EXCEPTION_CLASS_E11: return true;
    default: return false;
  }
}

// Which elements of a memory operand the instruction really reads: one bit each, `element` bytes each.
bool masked_elements(Step& step, const Operand& memory, unsigned size, unsigned& element, uint64_t& wanted) {
  Cpu& cpu = step.cpu;
  const Instruction& in = step.in;
  if (is_masked_move(in.mnemonic)) {
    element = memory.element_bits >= 64 || in.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD ||
                      in.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ
                  ? 8
                  : 4;
    const VectorBytes mask = read_vector(cpu, in.operands[1].reg);
    wanted = 0;
    for (unsigned i = 0; i < size / element; ++i) wanted |= uint64_t{mask[(i + 1) * element - 1] >> 7 & 1u} << i;
    return true;
  }
  const unsigned number = write_mask_register(in);
  if (number == 0 || !suppresses_faults(in) || memory.element_bits < 8) return false;
  const uint64_t mask = read_mask(cpu, number);
  element = memory.element_bits / 8;
  const unsigned count = size / element;
  const Operand& destination = in.operands[0];
  const unsigned results = destination.element_bits ? destination.bits / destination.element_bits : count;
  const uint64_t valid = results >= 64 ? ~uint64_t{0} : (uint64_t{1} << results) - 1;
  if (is_expand(in.mnemonic)) {
    const unsigned taken = static_cast<unsigned>(std::popcount(mask & valid));
    wanted = taken >= 64 ? ~uint64_t{0} : (uint64_t{1} << taken) - 1;
  } else if (count == results || destination.reg_class == RegisterClass::Mask) {
    wanted = mask;
  } else if (in.exception_class == ZYDIS_EXCEPTION_CLASS_E6 || (in.bytes[in.opcode_offset - 1u] & 0x10)) {
    wanted = (mask & valid) != 0 ? ~uint64_t{0} : 0;  // broadcast: one element for several results
  } else {                                            // scalar
    wanted = mask & 1 ? ~uint64_t{0} : 0;
  }
  return true;
}

bool load_elements(Step& step, const Operand& memory, unsigned size, uint8_t* out) {
  unsigned element;
  uint64_t wanted;
  const Fault fault = step.cpu.fault;
  step.cpu.fault = {};
  fpu_put_away(step.cpu);
  if (!masked_elements(step, memory, size, element, wanted)) {
    step.cpu.fault = fault;
    return false;
  }
  for (unsigned i = 0; i < size / element; ++i) {
    if (!(wanted >> i & 1)) continue;
    uint64_t linear;
    if (!part_address(step, memory, i * element, element, false, linear)) return false;
    if (!mmu::read_bytes(step.cpu, linear, out + i * element, element)) return false;
  }
  return true;
}

// `linear`: of the whole operand; cpu.fault is raised where it has none.
bool run_load(Step& step, NativeCode code, const Operand& memory, unsigned size, uint64_t linear) {
  Cpu& cpu = step.cpu;
  mmu::Host host;
  if (!cpu.fault.raised) host = mmu::host_for_read(cpu, linear, size);
  if (host.pointer != nullptr) return execute(step, code, host.pointer);
  const Bounce bounce(raw_address(step, memory));
  const bool whole = !cpu.fault.raised && mmu::read_bytes(cpu, linear, bounce.data(), size);
  if (!whole && !load_elements(step, memory, size, bounce.data())) {
    return (is_x87(step.in) || touches_mmx(step.in)) && x87_exception_pending(cpu) ? raise(cpu, Mf) : false;
  }
  return execute(step, code, bounce.data());
}

// --- stores ----------------------------------------------------------------------------------------------------------

// x87 stores to a device, to two pages, or where the store faults. An unmasked exception of the operation itself keeps
// it from storing at all (vol. 1, 8.5): whether it did shows in two runs on buffers of different content. `refused`: a
// fault that the address itself raises, due only if there is a store.
bool run_x87_store(Step& step, NativeCode code, unsigned size, uint64_t linear, const Fault& refused) {
  Cpu& cpu = step.cpu;
  cpu.fault = {};
  fpu_put_away(cpu);
  const auto image = cpu.xsave;
  const Bounce zeros(linear), ones(linear);
  std::fill_n(ones.data(), size, uint8_t{0xff});
  if (!execute(step, code, zeros.data())) return false;
  cpu.xsave = image;
  if (!execute(step, code, ones.data())) return false;
  if (stores_environment(step.in.mnemonic)) {
    // Instruction and data pointers are the host's: the guest must not see them.
    const unsigned first = step.in.operand_bits == 16 ? 6 : 12, end = step.in.operand_bits == 16 ? 14 : 28;
    for (const Bounce* bounce : {&zeros, &ones}) std::fill(bounce->data() + first, bounce->data() + end, uint8_t{0});
  }
  if (!std::equal(zeros.data(), zeros.data() + size, ones.data())) return true;
  // Ten bytes are two stores: the second may fault when the first is done.
  const unsigned first = size == 10 ? 8 : size;
  if (!refused.raised && mmu::write_bytes(cpu, linear, ones.data(), first) &&
      (first == size || mmu::write_bytes(cpu, linear + first, ones.data() + first, size - first))) {
    return true;
  }
  if (refused.raised) cpu.fault = refused;
  cpu.xsave = image;
  return false;
}

bool run_store(Step& step, NativeCode code, unsigned size, uint64_t linear) {
  Cpu& cpu = step.cpu;
  const mmu::Host host = mmu::host_for_write(cpu, linear, size);
  if (host.pointer != nullptr && !stores_environment(step.in.mnemonic)) {
    if (!execute(step, code, host.pointer)) return false;
    mmu::wrote(cpu, host, size);
    return true;
  }
  if (is_x87(step.in)) return run_x87_store(step, code, size, linear, {});
  if (cpu.fault.raised || !mmu::probe(cpu, linear, size, Access::Write)) return false;
  const Bounce bounce(linear);
  return execute(step, code, bounce.data()) && mmu::write_bytes(cpu, linear, bounce.data(), size);
}

// Only some bytes are written: those that come out the same whatever was there before.
bool run_masked_store(Step& step, NativeCode code, const Operand& memory, unsigned size) {
  Cpu& cpu = step.cpu;
  const uint64_t address = raw_address(step, memory);
  const Bounce zeros(address), ones(address);
  std::fill_n(ones.data(), size, uint8_t{0xff});
  if (!execute(step, code, zeros.data()) || !execute(step, code, ones.data())) return false;
  const auto written = [&](unsigned i) { return zeros.data()[i] == ones.data()[i]; };
  const auto for_runs = [&](auto&& act) {
    for (unsigned i = 0; i < size;) {
      if (!written(i)) {
        ++i;
        continue;
      }
      unsigned end = i + 1;
      while (end < size && written(end)) ++end;
      uint64_t linear;
      if (!part_address(step, memory, i, end - i, true, linear) || !act(linear, i, end - i)) return false;
      i = end;
    }
    return true;
  };
  return for_runs([&](uint64_t linear, unsigned, unsigned length) {
           return mmu::probe(cpu, linear, length, Access::Write);
         }) &&
         for_runs([&](uint64_t linear, unsigned at, unsigned length) {
           return mmu::write_bytes(cpu, linear, zeros.data() + at, length);
         });
}

// MASKMOVQ and its kin: DS:rDI.
bool run_byte_masked_store(Step& step, NativeCode code) {
  Operand memory;
  memory.kind = Operand::Kind::Memory;
  memory.base = Rdi;
  memory.segment = step.in.has_segment_override ? step.in.segment_override : uint8_t{Ds};
  return run_masked_store(step, code, memory, step.in.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16);
}

// Outside 64-bit mode registers 8-15 keep their upper halves, which the host's instruction would clear.
bool clear_upper(Step& step) {
  Cpu& cpu = step.cpu;
  fpu_put_away(cpu);
  for (unsigned i = 0; i < 8; ++i) {
    write_vector(cpu, i, step.in.mnemonic == ZYDIS_MNEMONIC_VZEROALL ? VectorBytes{} : read_vector(cpu, i), 16);
  }
  return true;
}

}  // namespace

bool run_simd(Step& step) {
  const Instruction& in = step.in;
  if (!simd_allowed(step)) return false;
  const Operand* memory = in.memory();
  if (memory != nullptr && memory->vsib) return run_vsib(step);
  if (step.cpu.code_bits != 64 &&
      (in.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || in.mnemonic == ZYDIS_MNEMONIC_VZEROALL)) {
    return clear_upper(step);
  }
  const NativeCode code = native_code(in, step.cpu.code_bits);
  if (code == nullptr) return raise(step.cpu, Ud);
  if (is_byte_masked_store(in.mnemonic)) return run_byte_masked_store(step, code);
  if (memory == nullptr) return execute(step, code, nullptr);

  const unsigned size = operand_size(in, *memory);
  if (size == 0 || size > largest_operand) return raise(step.cpu, Ud);
  const bool masked = write_mask_register(in) != 0;
  if (requires_alignment(in, size) && (raw_address(step, *memory) & (size - 1))) {
    // Under a mask that leaves nothing to access there is no #GP (vol. 2, 2.8.2).
    fpu_put_away(step.cpu);
    const unsigned elements = memory->element_bits ? size * 8 / memory->element_bits : 1;
    const uint64_t wanted = elements >= 64 ? ~uint64_t{0} : (uint64_t{1} << elements) - 1;
    if (!masked || (read_mask(step.cpu, write_mask_register(in)) & wanted) != 0) return raise(step.cpu, Gp, 0);
  }
  if (memory->writes && (masked || is_masked_move(in.mnemonic) || is_compress(in.mnemonic))) {
    return run_masked_store(step, code, *memory, size);
  }
  uint64_t linear = 0;
  const bool addressed = operand_address(step, *memory, size, memory->writes, linear);
  if (!memory->writes) return run_load(step, code, *memory, size, linear);
  if (addressed) return run_store(step, code, size, linear);
  return is_x87(in) ? run_x87_store(step, code, size, 0, Fault{step.cpu.fault}) : false;
}

}  // namespace caisson::jit
