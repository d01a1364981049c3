#include "cpufuzz/forms.h"

#include <Zydis/Zydis.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <tuple>

#include "cpufuzz/filter.h"
#include "x86/registers.h"

namespace caisson::cpufuzz {
namespace {

using jit::DecodeStatus;
using jit::Encoding;
using jit::Instruction;
using jit::Operand;
using jit::RegisterClass;

// What makes two encodings the same form.
using Key = std::tuple<uint16_t, uint8_t, uint8_t, uint8_t, uint8_t, bool, unsigned, bool, bool, uint8_t>;

Key key_of(const Instruction& in) {
  const Operand* memory = in.memory();
  unsigned width = 0;  // of the widest operand: tells vector lengths apart
  for (unsigned i = 0; i < in.operand_count; ++i) width = std::max<unsigned>(width, in.operands[i].bits);
  return {in.mnemonic,
          static_cast<uint8_t>(in.encoding),
          in.opcode_map,
          in.opcode,
          in.operand_bits,
          memory != nullptr,
          width,
          in.lock,
          in.rep || in.repne,
          in.operand_count};
}

// True where it works on all of memory and pointers that no operand shows.
bool moves_much(const Instruction& in) {
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU: return true;
    default: return in.category == ZYDIS_CATEGORY_STRINGOP;
  }
}

class Walk {
 public:
  std::vector<Form> run() {
    legacy();
    vex();
    evex();
    return std::move(forms_);
  }

 private:
  // Tries the opcode bytes with every kind of ModR/M byte.
  void shapes(std::vector<uint8_t> bytes, bool x87 = false) {
    const size_t at = bytes.size();
    bytes.resize(15, 0x11);
    const auto consider = [&](uint8_t modrm) {
      bytes[at] = modrm;
      // As SIB byte, should there be one: no index, base RBX; as VSIB: index 4.
      bytes[at + 1] = 0x23;
      note(bytes, at);
    };
    for (unsigned reg = 0; reg < 8; ++reg) {
      consider(static_cast<uint8_t>(reg << 3 | 3));     // [rbx]
      consider(static_cast<uint8_t>(0x44 | reg << 3));  // [sib + disp8]
      for (unsigned rm = 0; rm < 8; ++rm) {
        if (x87 || rm < 2 || at < 3) consider(static_cast<uint8_t>(0xc0 | reg << 3 | rm));
      }
    }
  }

  void note(const std::vector<uint8_t>& bytes, size_t modrm_at) {
    Instruction in;
    if (decode(bytes, 64, in) != DecodeStatus::Ok) return;
    if (!seen_.insert(key_of(in)).second) return;
    Form form;
    form.bytes.assign(bytes.begin(), bytes.begin() + in.length);
    if (in.has_modrm && in.modrm_offset == modrm_at) form.modrm_at = static_cast<unsigned>(modrm_at);
    unsigned width = 0;
    for (unsigned i = 0; i < in.operand_count; ++i) width = std::max<unsigned>(width, in.operands[i].bits);
    static constexpr std::array encodings{"", "3DNow ", "XOP ", "VEX ", "EVEX "};
    form.name = fmt::format("{}{}{}{} map {} opcode {:02x}, {} bits{}", encodings[static_cast<size_t>(in.encoding)],
                            in.lock ? "LOCK " : "", in.rep || in.repne ? "REP " : "",
                            ZydisMnemonicGetString(static_cast<ZydisMnemonic>(in.mnemonic)), in.opcode_map, in.opcode,
                            width ? width : in.operand_bits, in.memory() ? ", memory" : "");
    form.not_offered = never_offered(in);
    form.reason = form.not_offered ? "no CPU model offers it" : not_comparable(in);
    forms_.push_back(std::move(form));
  }

  void legacy() {
    for (const unsigned prefix : {0u, 0x66u, 0xf2u, 0xf3u, 0xf0u}) {
      for (const bool operand : {false, true}) {
        if (prefix == 0x66 && operand) continue;
        for (const bool wide : {false, true}) {
          for (unsigned map = 0; map < 4; ++map) {
            for (unsigned opcode = 0; opcode < 256; ++opcode) {
              std::vector<uint8_t> bytes;
              if (operand) bytes.push_back(0x66);
              if (prefix) bytes.push_back(static_cast<uint8_t>(prefix));
              if (wide) bytes.push_back(0x48);
              if (map > 0) bytes.push_back(0x0f);
              if (map > 1) bytes.push_back(map == 2 ? 0x38 : 0x3a);
              bytes.push_back(static_cast<uint8_t>(opcode));
              shapes(std::move(bytes), map == 0 && (opcode & 0xf8) == 0xd8);
            }
          }
        }
      }
    }
  }

  void vex() {
    for (unsigned map = 1; map <= 3; ++map) {
      for (unsigned low = 0; low < 8; ++low) {  // L, pp
        for (const unsigned wide : {0u, 0x80u}) {
          for (const unsigned vvvv : {0x78u, 0x68u}) {  // none; one
            for (unsigned opcode = 0; opcode < 256; ++opcode)
              shapes({0xc4, static_cast<uint8_t>(0xe0 | map), static_cast<uint8_t>(wide | vvvv | low),
                      static_cast<uint8_t>(opcode)});
          }
        }
      }
    }
  }

  void evex() {
    for (unsigned map = 1; map <= 3; ++map) {
      for (unsigned pp = 0; pp < 4; ++pp) {
        for (const unsigned wide : {0u, 0x80u}) {
          for (const unsigned vvvv : {0x7cu, 0x6cu}) {
            for (const unsigned third : {0x08u, 0x28u, 0x48u, 0x09u, 0x29u, 0x49u, 0x18u, 0x38u, 0x58u}) {
              for (unsigned opcode = 0; opcode < 256; ++opcode)
                shapes({0x62, static_cast<uint8_t>(0xf0 | map), static_cast<uint8_t>(wide | vvvv | pp),
                        static_cast<uint8_t>(third), static_cast<uint8_t>(opcode)});
            }
          }
        }
      }
    }
  }

  std::vector<Form> forms_;
  std::set<Key> seen_;
};

// Registers, W-free bits and lengths of the payload anew; the caller checks that it is still the same form.
void vary(std::vector<uint8_t>& bytes, const Instruction& in, unsigned modrm_at, Random& random) {
  const auto byte = [&] { return static_cast<uint8_t>(random()); };
  if (modrm_at != 0) {
    const size_t tail = modrm_at + 1;
    for (size_t i = tail; i < bytes.size(); ++i) bytes[i] = byte();
    uint8_t modrm = byte();
    if (in.memory() != nullptr) {
      modrm &= 0x7f;  // no disp32: seldom reaches
      if (random() % 4) modrm = static_cast<uint8_t>((modrm & 0x3f) | (random() % 2 ? 0x40 : 0));
    } else {
      modrm |= 0xc0;
    }
    bytes[modrm_at] = modrm;
  } else {
    for (size_t i = in.opcode_offset + 1u; i < bytes.size(); ++i) bytes[i] = byte();
  }
  if (in.encoding == Encoding::Vex) {
    bytes[1] = static_cast<uint8_t>((bytes[1] & 0x1f) | (byte() & 0xe0));
    bytes[2] = static_cast<uint8_t>((bytes[2] & 0x87) | (random() % 2 ? byte() & 0x78 : bytes[2] & 0x78));
  } else if (in.encoding == Encoding::Evex) {
    bytes[1] = static_cast<uint8_t>((bytes[1] & 0x0f) | (byte() & 0xf0));
    if (random() % 2) bytes[2] = static_cast<uint8_t>((bytes[2] & 0x87) | (byte() & 0x78));
    bytes[3] = static_cast<uint8_t>((bytes[3] & 0x70) | (byte() & 0x8f));
  } else if (in.rex != 0) {
    const size_t rex_at = in.opcode_offset - 1u - (in.opcode_map == 0 ? 0 : in.opcode_map == 1 ? 1 : 2);
    bytes[rex_at] = static_cast<uint8_t>((bytes[rex_at] & 0xf8) | (byte() & 7));
  }
}

void set_vector_index(State& state, unsigned reg, unsigned byte, int32_t value) {
  size_t at = 0;
  if (reg < 16) {
    at = byte < 16 ? 160 + 16 * reg + byte : byte < 32 ? 576 + 16 * reg + byte - 16 : 1152 + 32 * reg + byte - 32;
  } else {
    at = 1664 + 64 * (reg - 16) + byte;
  }
  if (at + 4 <= xsave_size) std::memcpy(state.xsave.data() + at, &value, 4);
}

// Makes the memory operand point into the data: aligned or not, across pages, and now and then elsewhere.
bool aim(const Instruction& in, State& state, Random& random) {
  const Operand& memory = *in.memory();
  if (in.address_bits == 16 || memory.base == Operand::rip_register) return false;
  const auto pick = [&](uint64_t below) { return random() % below; };
  uint64_t target = data_address + data_size / 2 + pick(256) - 128;
  if (pick(3) != 0) target &= ~uint64_t{63};
  if (pick(8) == 0) target = data_address + data_size / 2 - pick(64);  // across a page
  if (pick(40) == 0) target = data_address + data_size - pick(80);     // up to the end
  if (pick(60) == 0) target = pick(2) ? random() : random() >> 17;     // anywhere
  if (memory.segment == x86::Fs) target -= state.fs_base;
  if (memory.segment == x86::Gs) target -= state.gs_base;
  target -= static_cast<uint64_t>(memory.displacement);
  if (memory.vsib) {
    for (unsigned i = 0; i < 64; i += 4) {
      int32_t index = static_cast<int32_t>(pick(400)) - 200;
      if (i % 8 == 4) index = pick(2) ? 0 : -1;  // the high half of a 64-bit index, now and then a small 32-bit one
      set_vector_index(state, memory.index, i, index);
    }
    if (memory.base >= 16) return false;
    state.gpr[memory.base] = target;
    return true;
  }
  if (memory.index < 16) {
    if (memory.index == memory.base) return false;
    state.gpr[memory.index] = pick(2) ? pick(16) : 0 - pick(16);
    target -= state.gpr[memory.index] * memory.scale;
  }
  if (memory.base >= 16) return pick(8) == 0;  // stands where it stands: mostly not mapped
  if (in.address_bits == 32) target &= 0xffff'ffff;
  state.gpr[memory.base] = target;
  return true;
}

void prepare(const Instruction& in, State& state, Random& random) {
  const auto pick = [&](uint64_t below) { return random() % below; };
  const uint64_t center = data_address + data_size / 2;
  using namespace x86;
  if (moves_much(in)) {
    state.gpr[Rsi] = center + pick(64);
    state.gpr[Rdi] = center + pick(64);
    if (in.rep || in.repne) state.gpr[Rcx] = pick(4) ? pick(40) : pick(2000);
    if (in.address_bits == 32 && pick(2)) state.gpr[Rcx] |= random() << 32;
  }
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_ENTER: state.gpr[Rbp] = center + 256 + pick(64) * 8; break;
    case ZYDIS_MNEMONIC_XLAT: state.gpr[Rbx] = center; break;
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
      if (pick(2)) state.gpr[Rdx] = pick(2) ? 0 : pick(64);
      break;
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
      if (pick(2)) {
        std::memset(state.data.data() + data_size / 2 - 128, 0, 256);
        state.gpr[Rax] = state.gpr[Rdx] = 0;
      }
      break;
    default: break;
  }
  if (in.category == ZYDIS_CATEGORY_BITBYTE && in.memory() != nullptr &&
      in.operands[1].kind == Operand::Kind::Register && in.operands[1].reg != in.memory()->base &&
      in.operands[1].reg_class == RegisterClass::Gpr)
    state.gpr[in.operands[1].reg] = pick(0x400) - 0x200;
}

}  // namespace

std::vector<Form> all_forms() { return Walk().run(); }

std::optional<Single> random_single(const Form& form, Random& random) {
  Instruction in;
  if (decode(form.bytes, 64, in) != DecodeStatus::Ok) return {};
  const Key key = key_of(in);
  for (unsigned tries = 0; tries < 60; ++tries) {
    std::vector<uint8_t> bytes = form.bytes;
    bytes.resize(15, 0);
    vary(bytes, in, form.modrm_at, random);
    // Prefixes that change addresses only.
    if (in.memory() != nullptr || moves_much(in)) {
      static constexpr std::array<uint8_t, 6> others{0x67, 0x64, 0x65, 0x2e, 0x36, 0x3e};
      if (random() % 6 == 0) {
        bytes.insert(bytes.begin(), others[random() % others.size()]);
        bytes.resize(15);
      }
    }
    Instruction now;
    if (decode(bytes, 64, now) != DecodeStatus::Ok || key_of(now) != key) continue;
    if (never_offered(now) || not_comparable(now) != nullptr) continue;
    Single single;
    single.state = random_state(random);
    single.undefined = undefined_flags(now);
    if (now.memory() != nullptr && !aim(now, single.state, random)) continue;
    if (now.memory() != nullptr && now.memory()->base == x86::Rsp) continue;
    prepare(now, single.state, random);
    single.half_done = vague_after_fault(now);
    single.may_fault = may_fault_under_zero_mask(now);
    bytes.resize(now.length);
    bytes.push_back(0x0f);
    bytes.push_back(0x0b);
    single.code = std::move(bytes);
    single.state.rip = code_address + 0x1000 + (random() % 8 ? random() % 64 * 16 : 0xfff - random() % 20);
    return single;
  }
  return {};
}

}  // namespace caisson::cpufuzz
