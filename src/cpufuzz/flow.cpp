#include "cpufuzz/flow.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "cpufuzz/filter.h"
#include "jit/decode/instruction.h"
#include "x86/registers.h"

namespace caisson::cpufuzz {
namespace {

using jit::DecodeStatus;
using jit::Instruction;
using jit::Operand;

void put(std::vector<uint8_t>& out, std::initializer_list<unsigned> list) {
  for (const unsigned byte : list) out.push_back(static_cast<uint8_t>(byte));
}

void put32(std::vector<uint8_t>& out, int64_t value) {
  for (unsigned i = 0; i < 4; ++i) out.push_back(static_cast<uint8_t>(value >> 8 * i));
}

// Appends the item standing at out.size(); `to` is where its target stands. False: rel8 does not reach.
bool emit(std::vector<uint8_t>& out, const Item& item, size_t to, bool wide) {
  const unsigned reg = item.reg, low = reg & 7, high = reg >> 3;
  const auto relative = [&](size_t size) { return static_cast<int64_t>(to) - static_cast<int64_t>(out.size() + size); };
  const auto narrow = [&] {
    const int64_t distance = relative(1);
    out.push_back(static_cast<uint8_t>(distance));
    return distance == static_cast<int8_t>(distance);
  };
  const auto address = [&] {
    put(out, {0x48 | high << 2, 0x8d, 0x05 | low << 3});
    put32(out, relative(4));
  };
  switch (item.kind) {
    case Item::Kind::Nothing: break;
    case Item::Kind::Bytes: out.insert(out.end(), item.bytes.begin(), item.bytes.end()); break;
    case Item::Kind::JumpIf:
      if (!wide) {
        put(out, {0x70u | item.condition});
        return narrow();
      }
      put(out, {0x0f, 0x80u | item.condition});
      put32(out, relative(4));
      break;
    case Item::Kind::Jump:
      if (!wide) {
        put(out, {0xeb});
        return narrow();
      }
      put(out, {0xe9});
      put32(out, relative(4));
      break;
    case Item::Kind::LoopRcx: put(out, {0xe2}); return narrow();
    case Item::Kind::Call:
      put(out, {0xe8});
      put32(out, relative(4));
      break;
    case Item::Kind::JumpRegister:
      address();
      put(out, {0x40 | high, 0xff, 0xe0 | low});
      break;
    case Item::Kind::CallRegister:
      address();
      put(out, {0x40 | high, 0xff, 0xd0 | low});
      break;
    case Item::Kind::PushReturn:
      address();
      put(out, {0x40 | high, 0x50 | low, 0xc3});
      break;
    case Item::Kind::CallMemory:
      address();
      put(out, {0x48 | high << 2, 0x89, 0x44 | low << 3, 0x24, 0xc0, 0xff, 0x54, 0x24, 0xc0});
      break;
    case Item::Kind::Return:
      if (item.immediate == 0) {
        put(out, {0xc3});
      } else {
        put(out, {0xc2, item.immediate & 0xffu, unsigned{item.immediate} >> 8});
      }
      break;
    case Item::Kind::End: put(out, {0x0f, 0x0b}); break;
  }
  return true;
}

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  Flow make() {
    flow_.state = random_state(random_);
    choose_registers();
    vectors_ = pick(2);
    const size_t count = 2 + pick(19);
    // Main program.
    body(count, true);
    add({.kind = Item::Kind::End});
    const size_t functions = calls_.empty() ? 0 : 1 + pick(3);
    std::vector<size_t> starts;
    for (size_t i = 0; i < functions; ++i) {
      starts.push_back(flow_.items.size());
      in_function_ = true;
      body(1 + pick(5), pick(3) == 0);
      add({.kind = Item::Kind::Return, .immediate = static_cast<uint16_t>(pick(8) ? 0 : pick(4) * 8)});
    }
    // Calls from a function lead to later ones only: no recursion without end.
    for (const size_t at : calls_) {
      std::vector<size_t> later;
      for (const size_t start : starts) {
        if (start > at) later.push_back(start);
      }
      if (later.empty()) {
        flow_.items[at] = {};
      } else {
        flow_.items[at].target = later[pick(later.size())];
      }
    }
    // Anywhere in the page, now and then across its end.
    flow_.state.rip = code_address + 0x1000 + (pick(4) ? pick(64) * 16 : 0xfff - pick(80));
    return std::move(flow_);
  }

 private:
  uint64_t pick(uint64_t below) { return random_() % below; }
  void add(Item item) { flow_.items.push_back(std::move(item)); }

  // Pointers that nothing else writes, one loop counter, the rest free.
  void choose_registers() {
    reserved_ = 1u << x86::Rsp;
    pointers_ = 1u << x86::Rsp;
    for (unsigned i = 0; i < 3; ++i) {
      const unsigned reg = static_cast<unsigned>(pick(16));
      if (reg == x86::Rsp || reg == x86::Rcx) continue;
      pointers_ |= 1u << reg;
      uint64_t value = data_address + 0x400 + pick(data_size - 0x800);
      if (pick(4) == 0) value = (value | 0xfff) - pick(64);
      if (pick(2)) value &= ~uint64_t{63};
      if (pick(40) == 0) value = pick(2) ? data_address + data_size - pick(80) : random_();
      flow_.state.gpr[reg] = value;
    }
    reserved_ |= pointers_;
    do {
      counter_ = static_cast<unsigned>(pick(2) ? unsigned{x86::Rcx} : pick(16));
    } while (reserved_ >> counter_ & 1);
    reserved_ |= 1u << counter_;
  }

  std::optional<std::vector<uint8_t>> instruction() {
    static constexpr std::array<uint8_t, 14> prefixes{0x66, 0xf2, 0xf3, 0x48, 0x41, 0x44, 0x45,
                                                      0x49, 0x4c, 0x4d, 0x64, 0x65, 0xf0, 0x67};
    for (unsigned tries = 0; tries < 100'000; ++tries) {
      std::array<uint8_t, 15> bytes;
      for (auto& byte : bytes) byte = static_cast<uint8_t>(random_());
      unsigned at = 0;
      const auto prefix_count = static_cast<unsigned>(pick(3));
      for (unsigned i = 0; i < prefix_count; ++i) bytes[at++] = prefixes[pick(prefixes.size())];
      const bool vector = vectors_ && pick(2);
      if (vector) {
        static constexpr std::array<uint8_t, 6> openings{0x0f, 0x0f, 0xc5, 0xc4, 0x62, 0xd8};
        bytes[at] = openings[pick(openings.size())];
        if (bytes[at] == 0xd8) bytes[at] = static_cast<uint8_t>(0xd8 + pick(8));
      } else if (pick(3) == 0) {
        bytes[at] = 0x0f;
      }
      Instruction in;
      if (decode(bytes, 64, in) != DecodeStatus::Ok || in.simd != vector) continue;
      if (not_comparable(in) || never_offered(in) || !good(in)) continue;
      std::vector<uint8_t> out(bytes.begin(), bytes.begin() + in.length);
      // Nothing may read what the manual leaves undefined.
      if (undefined_flags(in) != 0) put(out, {0x48, 0x85, 0xc0 | static_cast<unsigned>(pick(8)) * 9});
      return out;
    }
    return {};
  }

  bool good(const Instruction& in) {
    if ((in.gpr_written & reserved_) != 0) return false;
    if (in.mnemonic == ZYDIS_MNEMONIC_UD2 || in.mnemonic == ZYDIS_MNEMONIC_INT3 || in.mnemonic == ZYDIS_MNEMONIC_INT1 ||
        in.mnemonic == ZYDIS_MNEMONIC_UD0 || in.mnemonic == ZYDIS_MNEMONIC_UD1)
      return false;
    // Two accesses, or many, of which the CPU may find the second bad first; pointers that nobody aims. Single
    // instructions do those.
    switch (in.mnemonic) {
      case ZYDIS_MNEMONIC_FRSTOR:
      case ZYDIS_MNEMONIC_FLDENV:
      case ZYDIS_MNEMONIC_FXRSTOR:
      case ZYDIS_MNEMONIC_FXRSTOR64:
      case ZYDIS_MNEMONIC_MASKMOVQ:
      case ZYDIS_MNEMONIC_MASKMOVDQU:
      case ZYDIS_MNEMONIC_VMASKMOVDQU: return false;
      default: break;
    }
    if (in.category == ZYDIS_CATEGORY_STRINGOP) return false;
    const Operand* memory = in.memory();
    if (memory == nullptr) return true;
    if (memory->vsib) return false;  // single instructions do those
    if (memory->displacement > 0x300 || memory->displacement < -0x300) return false;
    if (memory->index != Operand::no_register) return pick(32) == 0;
    const bool segment = memory->segment >= x86::Fs;
    if (segment) return memory->base == Operand::no_register;
    return memory->base < 16 && (pointers_ >> memory->base & 1);
  }

  // Instructions with jumps, loops and calls between them.
  void body(size_t count, bool loops) {
    const size_t first = flow_.items.size(), end = first + count;
    bool loop_open = false;
    size_t loop_at = 0;
    std::vector<size_t> forward;
    while (flow_.items.size() < end) {
      switch (pick(8)) {
        case 0:
          forward.push_back(flow_.items.size());
          add({.kind = Item::Kind::JumpIf, .wide = pick(4) == 0, .condition = static_cast<uint8_t>(pick(16))});
          break;
        case 1: {
          static constexpr std::array kinds{Item::Kind::Jump, Item::Kind::JumpRegister, Item::Kind::PushReturn};
          if (pick(2)) break;
          forward.push_back(flow_.items.size());
          add({.kind = kinds[pick(kinds.size())], .wide = pick(4) == 0, .reg = scratch()});
          break;
        }
        case 2: {
          if (pick(2)) break;
          static constexpr std::array kinds{Item::Kind::Call, Item::Kind::Call, Item::Kind::CallRegister,
                                            Item::Kind::CallMemory};
          calls_.push_back(flow_.items.size());
          add({.kind = kinds[pick(kinds.size())], .reg = scratch()});
          break;
        }
        case 3:
          if (loops && !loop_open && !in_function_) {
            // No jump from before may enter the loop: the counter would be anything.
            close(forward, flow_.items.size());
            Item start{.kind = Item::Kind::Bytes};
            put(start.bytes, {0x40 | counter_ >> 3, 0xb8 | (counter_ & 7)});
            put32(start.bytes, static_cast<int64_t>(1 + pick(40)));
            add(std::move(start));
            loop_at = flow_.items.size();
            loop_open = true;
          } else if (loop_open && flow_.items.size() > loop_at && pick(2)) {
            close(forward, flow_.items.size());
            close_loop(loop_at);
            loop_open = false;
          }
          break;
        case 4: {  // what goes on the stack comes off it
          Item push{.kind = Item::Kind::Bytes}, pop{.kind = Item::Kind::Bytes};
          const unsigned from = static_cast<unsigned>(pick(16)), to = scratch();
          put(push.bytes, {0x40 | from >> 3, 0x50 | (from & 7)});
          put(pop.bytes, {0x40 | to >> 3, 0x58 | (to & 7)});
          if (pick(4) == 0) push.bytes = {0x9c};
          // One item: no jump comes between.
          if (const auto inside = pick(2) ? instruction() : std::nullopt)
            push.bytes.insert(push.bytes.end(), inside->begin(), inside->end());
          push.bytes.insert(push.bytes.end(), pop.bytes.begin(), pop.bytes.end());
          add(std::move(push));
          break;
        }
        default:
          if (auto bytes = instruction()) add({.kind = Item::Kind::Bytes, .bytes = std::move(*bytes)});
          break;
      }
    }
    close(forward, flow_.items.size());
    if (loop_open) close_loop(loop_at);
  }

  void close_loop(size_t loop_at) {
    if (counter_ == x86::Rcx && pick(2)) {
      add({.kind = Item::Kind::LoopRcx, .target = loop_at});
      return;
    }
    Item step{.kind = Item::Kind::Bytes};
    const unsigned low = counter_ & 7, high = counter_ >> 3;
    switch (pick(3)) {
      case 0: put(step.bytes, {0x48 | high, 0xff, 0xc8 | low}); break;         // DEC
      case 1: put(step.bytes, {0x48 | high, 0x83, 0xe8 | low, 1}); break;      // SUB 1
      default: put(step.bytes, {0x48 | high, 0x83, 0xc0 | low, 0xff}); break;  // ADD -1
    }
    add(std::move(step));
    add({.kind = Item::Kind::JumpIf, .wide = true, .condition = 5, .target = loop_at});
  }

  // The jumps noted so far lead somewhere between themselves and `last`.
  void close(std::vector<size_t>& forward, size_t last) {
    for (const size_t from : forward) flow_.items[from].target = from + 1 + pick(last - from);
    forward.clear();
  }

  uint8_t scratch() {
    for (;;) {
      const auto reg = static_cast<uint8_t>(pick(16));
      if (!(reserved_ >> reg & 1)) return reg;
    }
  }

  Random random_;
  Flow flow_;
  uint32_t pointers_ = 0, reserved_ = 0;
  unsigned counter_ = 0;
  bool vectors_ = false, in_function_ = false;
  std::vector<size_t> calls_;
};

}  // namespace

Flow random_flow(uint64_t seed) { return Generator(seed).make(); }

Flow::Image Flow::assemble() const {
  std::vector<bool> wide(items.size());
  for (size_t i = 0; i < items.size(); ++i) wide[i] = items[i].wide;
  std::vector<size_t> at(items.size() + 1, 0);
  for (;;) {
    // Once for the positions, once for the bytes; a jump that does not reach becomes wide, and all begins again.
    Image image;
    bool good = true;
    for (const bool last : {false, true}) {
      image.code.clear();
      for (size_t i = 0; i < items.size(); ++i) {
        at[i] = image.code.size();
        const bool reaches = emit(image.code, items[i], at[items[i].target], wide[i]);
        if (last && !reaches) {
          if (items[i].kind == Item::Kind::LoopRcx) continue;  // then it leads elsewhere, on all machines
          wide[i] = true;
          good = false;
        }
      }
      at[items.size()] = image.code.size();
    }
    if (!good) continue;
    for (size_t i = 0; i < items.size(); ++i) {
      if (items[i].kind == Item::Kind::End) {
        image.end = at[i];
        break;
      }
    }
    CAISSON_CHECK(image.code.size() < 0x2000);
    return image;
  }
}

}  // namespace caisson::cpufuzz
