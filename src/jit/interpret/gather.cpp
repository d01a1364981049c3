// AVX2 and AVX-512 gathers, AVX-512 scatters.
//   Source   Intel SDM vol. 2, VGATHERDPS/VGATHERQPS …, VPSCATTERDD …
// Each element done clears its mask element, so that a fault on a later one leaves the instruction to be resumed.
#include "jit/interpret/gather.h"

#include "jit/fpu.h"
#include "jit/interpret/fpu_state.h"
#include "jit/interpret/operands.h"

namespace caisson::jit {
namespace {

struct Form {
  unsigned index_bytes, data_bytes;
  bool scatter;
};

bool form_of(uint16_t mnemonic, Form& form) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VPGATHERDD: form = {4, 4, false}; return true;
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VPGATHERDQ: form = {4, 8, false}; return true;
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERQD: form = {8, 4, false}; return true;
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VPGATHERQQ: form = {8, 8, false}; return true;
    case ZYDIS_MNEMONIC_VSCATTERDPS:
    case ZYDIS_MNEMONIC_VPSCATTERDD: form = {4, 4, true}; return true;
    case ZYDIS_MNEMONIC_VSCATTERDPD:
    case ZYDIS_MNEMONIC_VPSCATTERDQ: form = {4, 8, true}; return true;
    case ZYDIS_MNEMONIC_VSCATTERQPS:
    case ZYDIS_MNEMONIC_VPSCATTERQD: form = {8, 4, true}; return true;
    case ZYDIS_MNEMONIC_VSCATTERQPD:
    case ZYDIS_MNEMONIC_VPSCATTERQQ: form = {8, 8, true}; return true;
    default: return false;
  }
}

int64_t index_at(const VectorBytes& vector, unsigned element, unsigned bytes) {
  if (bytes == 8) {
    int64_t value;
    std::memcpy(&value, vector.data() + element * 8, 8);
    return value;
  }
  int32_t value;
  std::memcpy(&value, vector.data() + element * 4, 4);
  return value;
}

// Bytes of the vector length: VEX.L or EVEX.L'L.
unsigned vector_bytes(const Instruction& in) {
  const uint8_t payload = in.bytes[in.opcode_offset - 1u];
  if (in.encoding == Encoding::Evex) return 16u << (payload >> 5 & 3);
  return payload & 4 ? 32 : 16;
}

}  // namespace

bool run_vsib(Step& step) {
  Cpu& cpu = step.cpu;
  const Instruction& in = step.in;
  Form form;
  const Operand* memory = in.memory();
  if (memory == nullptr || !form_of(in.mnemonic, form)) return raise(cpu, x86::Ud);
  const bool evex = in.encoding == Encoding::Evex;
  const unsigned count = vector_bytes(in) / std::max(form.index_bytes, form.data_bytes);
  const unsigned data_size = count * form.data_bytes;
  fpu_put_away(cpu);

  const unsigned vector_number = form.scatter ? in.operands[2].reg : in.operands[0].reg;
  VectorBytes data = read_vector(cpu, vector_number);
  const VectorBytes indices = read_vector(cpu, memory->index);
  VectorBytes mask_vector{};
  uint64_t mask = 0;
  unsigned mask_number;
  if (evex) {
    mask_number = in.bytes[in.opcode_offset - 1u] & 7;
    mask = read_mask(cpu, mask_number);
  } else {
    mask_number = in.operands[2].reg;
    mask_vector = read_vector(cpu, mask_number);
    for (unsigned i = 0; i < count; ++i) mask |= uint64_t{mask_vector[(i + 1) * form.data_bytes - 1] >> 7 & 1u} << i;
  }

  bool done = true;
  for (unsigned i = 0; i < count && done; ++i) {
    if (!(mask >> i & 1)) continue;
    uint64_t offset = static_cast<uint64_t>(memory->displacement) +
                      static_cast<uint64_t>(index_at(indices, i, form.index_bytes) * memory->scale);
    if (memory->base < 16) offset += cpu.gpr[memory->base];
    offset = truncate(offset, in.address_bits);
    uint64_t linear;
    uint8_t* element = data.data() + i * form.data_bytes;
    done = linear_address(step, memory->segment, offset, form.data_bytes, form.scatter, linear) &&
           (form.scatter ? mmu::write_bytes(cpu, linear, element, form.data_bytes)
                         : mmu::read_bytes(cpu, linear, element, form.data_bytes));
    if (done) mask &= ~(uint64_t{1} << i);
  }

  if (!form.scatter) write_vector(cpu, vector_number, data, data_size <= 16 ? 16 : data_size);
  if (!form.scatter && data_size < 16) {
    std::fill(data.begin() + data_size, data.end(), uint8_t{0});
    write_vector(cpu, vector_number, data, 16);
  }
  if (evex) {
    write_mask(cpu, mask_number, done ? 0 : mask);
  } else {
    for (unsigned i = 0; i < count; ++i) {
      const uint8_t fill = !done && (mask >> i & 1) ? 0xff : 0;
      std::fill_n(mask_vector.begin() + i * form.data_bytes, form.data_bytes, fill);
    }
    write_vector(cpu, mask_number, mask_vector, data_size < 16 ? 16 : data_size);
    if (data_size < 16) {
      std::fill(mask_vector.begin() + data_size, mask_vector.end(), uint8_t{0});
      write_vector(cpu, mask_number, mask_vector, 16);
    }
  }
  return done;
}

}  // namespace caisson::jit
