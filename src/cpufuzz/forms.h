// Every form of every instruction that the decoder knows, found by walking the opcode maps: legacy maps 0, 0F, 0F38,
// 0F3A under each prefix that selects an instruction, VEX and EVEX maps with each length and W.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cpufuzz/random_state.h"
#include "jit/decode/instruction.h"
#include "x86/cpu_model.h"

namespace caisson::cpufuzz {

struct Form {
  std::vector<uint8_t> bytes;    // one encoding of it
  unsigned modrm_at = 0;         // offset of the ModR/M byte; 0: none
  std::string name;              // mnemonic, operand size, shape
  const char* reason = nullptr;  // why it is not compared; null: it is
  bool not_offered = false;      // by any CPU model
};

// In 64-bit mode. The order is the same in each run.
[[nodiscard]] std::vector<Form> all_forms();

// The form with random registers, memory operand, immediate, mask and prefixes, and a state that its memory operand
// suits. None where the form cannot be had so (the operand cannot be aimed).
struct Single {
  std::vector<uint8_t> code;
  State state;
  uint64_t undefined = 0;  // status flags that do not count afterwards
  bool half_done = false;  // see vague_after_fault()
  bool may_fault = false;  // see may_fault_under_zero_mask()
};
[[nodiscard]] std::optional<Single> random_single(const Form& form, Random& random);

}  // namespace caisson::cpufuzz
