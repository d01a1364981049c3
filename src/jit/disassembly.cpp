#include "jit/disassembly.h"

#include <Zydis/Zydis.h>

#include <array>

#include <fmt/core.h>

namespace caisson::jit {

std::string disassemble(std::span<const uint8_t> code, unsigned code_bits, uint64_t address, unsigned& length) {
  ZydisDisassembledInstruction text;
  const ZydisMachineMode mode = code_bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                                : code_bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                                  : ZYDIS_MACHINE_MODE_LEGACY_16;
  if (!ZYAN_SUCCESS(ZydisDisassembleIntel(mode, address, code.data(), code.size(), &text))) {
    length = 1;
    return code.empty() ? "(nothing)" : fmt::format("db {:02x}", code[0]);
  }
  length = text.info.length;
  return text.text;
}

}  // namespace caisson::jit
