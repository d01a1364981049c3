// Random programs with control flow: instructions, jumps forward, counted loops, calls and returns of every shape.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cpufuzz/random_state.h"

namespace caisson::cpufuzz {

struct Item {
  enum class Kind : uint8_t {
    Nothing,       // left of an item that shrinking removed
    Bytes,         // as they are
    JumpIf,        // `condition`, to `target`
    Jump,          // to `target`
    Call,          // to `target`
    JumpRegister,  // LEA `reg`, target; JMP `reg`
    CallRegister,
    PushReturn,  // LEA `reg`, target; PUSH `reg`; RET
    CallMemory,  // LEA `reg`, target; MOV [RSP-64], `reg`; CALL [RSP-64]
    LoopRcx,     // LOOP to `target`
    Return,      // RET, or RET imm16 where `immediate` is not 0
    End,         // UD2
  };
  Kind kind = Kind::Nothing;
  bool wide = false;  // rel32 where rel8 would do
  uint8_t condition = 0, reg = 0;
  uint16_t immediate = 0;
  size_t target = 0;  // index of an item
  std::vector<uint8_t> bytes{};
};

struct Flow {
  std::vector<Item> items;
  State state;

  // The program, and where its first End stands (both from state.rip).
  struct Image {
    std::vector<uint8_t> code;
    size_t end = 0;
  };
  [[nodiscard]] Image assemble() const;
};

[[nodiscard]] Flow random_flow(uint64_t seed);

}  // namespace caisson::cpufuzz
