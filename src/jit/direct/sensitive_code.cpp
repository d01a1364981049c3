#include "jit/direct/sensitive_code.h"

#include <cstring>

namespace caisson::jit {
namespace {

constexpr unsigned modrm_reg(uint8_t modrm) { return modrm >> 3 & 7; }
constexpr bool modrm_is_register(uint8_t modrm) { return modrm >= 0xc0; }

// Of what begins with 0F. (Prefixes change nothing here, but for RDPID, which has to have one.)
bool sensitive(uint8_t second, uint8_t third, uint8_t before) {
  switch (second) {
    // XGETBV: the host's XCR0.
    case 0x01: return third == 0xd0;
    // LSL: limits of the host's descriptors; Linux keeps the number of the CPU in one. From a register: the vDSO's.
    // (Behind the opcode of a call or jump it is a displacement.)
    case 0x03: return modrm_is_register(third) && before != 0xe8 && before != 0xe9;
    // XSAVE, XRSTOR, XSAVEOPT: components that the host has and the guest has not.
    case 0xae: return !modrm_is_register(third) && (modrm_reg(third) >= 4 && modrm_reg(third) <= 6);
    // XSAVEC; RDPID: the host's IA32_TSC_AUX.
    case 0xc7:
      return (!modrm_is_register(third) && modrm_reg(third) == 4) ||
             (modrm_is_register(third) && modrm_reg(third) == 7 && before == 0xf3);
    default: return false;
  }
}

}  // namespace

bool has_sensitive_code(std::span<const uint8_t> page) {
  const uint8_t* const begin = page.data();
  const uint8_t* const end = begin + page.size();
  for (const uint8_t* at = begin; at < end; ++at) {
    at = static_cast<const uint8_t*>(std::memchr(at, 0x0f, static_cast<size_t>(end - at)));
    if (at == nullptr) return false;
    // What goes on in the next page counts as harmless: one byte of an opcode says little.
    if (end - at >= 3 && sensitive(at[1], at[2], at > begin ? at[-1] : uint8_t{0})) return true;
  }
  return false;
}

}  // namespace caisson::jit
