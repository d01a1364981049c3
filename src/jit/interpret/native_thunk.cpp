// One-instruction thunks: encoding the guest's instruction anew, the code buffer, and recovery from host exceptions.
//   Source   Intel SDM vol. 2, 2.1-2.7 (prefixes, REX, VEX, EVEX)
//   Threads  see native_thunk.h
#include "jit/interpret/native_thunk.h"

#include <Zydis/DecoderTypes.h>

#include <array>
#include <csignal>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "jit/fpu.h"
#include "x86/registers.h"

namespace caisson::jit {
namespace {

constexpr uint8_t pointer_register = 6;  // RSI
constexpr uint8_t general_register = 3;  // RBX

// --- encoding --------------------------------------------------------------------------------------------------------

struct Encoded {
  std::array<uint8_t, 16> bytes{};
  uint8_t size = 0;
  void put(uint8_t byte) { bytes[size++] = byte; }
  bool operator==(const Encoded&) const = default;
};

struct Operands {
  bool memory = false;
  bool general_in_reg = false;
  bool general_in_rm = false;
};

Operands operands_of(const Instruction& in) {
  Operands found;
  for (unsigned i = 0; i < in.operand_count; ++i) {
    const Operand& operand = in.operands[i];
    if (operand.kind == Operand::Kind::Memory) found.memory = true;
    if (operand.reg_class != RegisterClass::Gpr) continue;
    if (operand.field == ZYDIS_OPERAND_ENCODING_MODRM_REG) found.general_in_reg = true;
    if (operand.field == ZYDIS_OPERAND_ENCODING_MODRM_RM) found.general_in_rm = true;
  }
  return found;
}

uint8_t new_modrm(const Instruction& in, const Operands& operands) {
  uint8_t modrm = in.modrm;
  if (operands.memory) modrm = static_cast<uint8_t>((modrm & 0x38) | pointer_register);
  if (operands.general_in_rm) modrm = static_cast<uint8_t>((modrm & 0xf8) | general_register);
  if (operands.general_in_reg) modrm = static_cast<uint8_t>((modrm & 0xc7) | general_register << 3);
  return modrm;
}

// x87 environments come in a 16- and a 32-bit form, by operand size.
bool sized_environment(const Instruction& in) {
  return in.mnemonic == ZYDIS_MNEMONIC_FNSTENV || in.mnemonic == ZYDIS_MNEMONIC_FLDENV ||
         in.mnemonic == ZYDIS_MNEMONIC_FNSAVE || in.mnemonic == ZYDIS_MNEMONIC_FRSTOR;
}

void put_tail(Encoded& out, const Instruction& in, const Operands& operands) {
  out.put(in.opcode);
  if (in.has_modrm) out.put(new_modrm(in, operands));
}

bool encode_legacy(Encoded& out, const Instruction& in, unsigned code_bits, const Operands& operands) {
  const unsigned escape = in.opcode_map == 0 ? 0 : in.opcode_map == 1 ? 1 : 2;
  const unsigned prefixes_end = in.opcode_offset - escape - (in.rex ? 1u : 0u);
  if (sized_environment(in)) {
    if (in.operand_bits == 16) out.put(0x66);
  } else {
    // Of repeated prefixes the last counts; more than one of each would not fit.
    uint8_t operand = 0, repeat = 0;
    for (unsigned i = 0; i < prefixes_end; ++i) {
      const uint8_t byte = in.bytes[i];
      if (byte == 0x66) operand = byte;
      if (byte == 0xf2 || byte == 0xf3) repeat = byte;
    }
    if (operand && in.opcode_map != 0) out.put(operand);
    if (repeat && in.opcode_map != 0) out.put(repeat);
  }
  uint8_t rex = code_bits == 64 ? in.rex & 0xf : uint8_t{0};
  if (operands.memory) rex &= 0xc;
  if (operands.general_in_rm) rex &= 0xe;
  if (operands.general_in_reg) rex &= 0xb;
  if (rex) out.put(0x40 | rex);
  if (in.opcode_map >= 1) out.put(0x0f);
  if (in.opcode_map == 2) out.put(0x38);
  if (in.opcode_map == 3) out.put(0x3a);
  put_tail(out, in, operands);
  return in.opcode_map <= 3;
}

// Instructions whose W makes a general register or its memory counterpart 64 bits wide: ignored outside 64-bit mode.
bool wide_general(const Instruction& in, const Operands& operands) {
  if (operands.general_in_reg || operands.general_in_rm) return true;
  switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SS:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VMOVD: return true;
    default: return false;
  }
}

// VEX and EVEX hold R, X, B, vvvv inverted; outside 64-bit mode their high bits are ignored or set.
bool encode_vex(Encoded& out, const Instruction& in, unsigned code_bits, const Operands& operands) {
  uint8_t first, second;
  if (in.bytes[in.opcode_offset - 2u] == 0xc5) {
    const uint8_t payload = in.bytes[in.opcode_offset - 1u];
    first = (payload & 0x80) | 0x61;
    second = payload & 0x7f;
  } else {
    first = in.bytes[in.opcode_offset - 2u];
    second = in.bytes[in.opcode_offset - 1u];
  }
  if (operands.memory) first |= 0x60;
  if (operands.general_in_rm) first |= 0x20;
  if (operands.general_in_reg) first |= 0x80;
  if (code_bits != 64) {
    first |= 0xe0;
    second |= 0x40;
    if (wide_general(in, operands)) second &= 0x7f;
  }
  out.put(0xc4);
  out.put(first);
  out.put(second);
  put_tail(out, in, operands);
  return true;
}

bool encode_evex(Encoded& out, const Instruction& in, unsigned code_bits, const Operands& operands) {
  uint8_t first = in.bytes[in.opcode_offset - 3u], second = in.bytes[in.opcode_offset - 2u];
  uint8_t third = in.bytes[in.opcode_offset - 1u];
  if (operands.memory || operands.general_in_rm) first |= 0x60;
  if (operands.general_in_reg) first |= 0x90;
  if (code_bits != 64) {
    first |= 0xf0;
    second |= 0x40;
    third |= 0x08;
    if (wide_general(in, operands)) second &= 0x7f;
  }
  out.put(0x62);
  out.put(first);
  out.put(second);
  out.put(third);
  put_tail(out, in, operands);
  return true;
}

bool encode(Encoded& out, const Instruction& in, unsigned code_bits) {
  const Operands operands = operands_of(in);
  bool known = false;
  switch (in.encoding) {
    case Encoding::Legacy: known = encode_legacy(out, in, code_bits, operands); break;
    case Encoding::Vex: known = encode_vex(out, in, code_bits, operands); break;
    case Encoding::Evex: known = encode_evex(out, in, code_bits, operands); break;
    default: break;
  }
  if (!known) return false;
  for (unsigned i = 0; i < in.immediate_size; ++i) {
    uint8_t byte = in.bytes[in.immediate_offset + i];
    // Is4 operands: bit 7 names registers 8-15, which are out of reach outside 64-bit mode.
    const bool is4 = in.encoding == Encoding::Vex && in.opcode_map == 3 && in.opcode >= 0x4a && in.opcode <= 0x4c;
    if (is4 && code_bits != 64) byte &= 0x7f;
    out.put(byte);
  }
  return true;
}

// --- code buffer -----------------------------------------------------------------------------------------------------

// Seen by signal handlers.
struct Running {
  const uint8_t* code = nullptr;  // executable view
  size_t size = 0;
  int raised = native_completed;
};
thread_local Running running;

class Thunks {
 public:
  Thunks() {
    install_native_signals();
    const Fd memory{memfd_create("caisson-thunks", MFD_CLOEXEC)};
    if (memory.get() < 0 || ftruncate(memory.get(), size) != 0) return;
    void* rw = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
    void* rx = mmap(nullptr, size, PROT_READ | PROT_EXEC, MAP_SHARED, memory.get(), 0);
    if (rw == MAP_FAILED || rx == MAP_FAILED) {
      if (rw != MAP_FAILED) munmap(rw, size);
      if (rx != MAP_FAILED) munmap(rx, size);
      log::error("no executable memory for SIMD instructions: {}; does the host forbid it to this process?",
                 std::strerror(errno));
      return;
    }
    writable_ = static_cast<uint8_t*>(rw);
    executable_ = static_cast<const uint8_t*>(rx);
    // Where a raised exception lands: the thunk's epilogue without its stores.
    constexpr std::array<uint8_t, 2> landing = {0x5b, 0xc3};  // pop rbx; ret
    std::memcpy(writable_, landing.data(), landing.size());
    running.code = executable_;
    running.size = size;
  }

  ~Thunks() {
    running = {};
    if (writable_ != nullptr) munmap(writable_, size);
    if (executable_ != nullptr) munmap(const_cast<uint8_t*>(executable_), size);
  }

  Thunks(const Thunks&) = delete;
  Thunks& operator=(const Thunks&) = delete;

  NativeCode find(const Encoded& encoded, bool through_rdi) {
    if (writable_ == nullptr) return nullptr;
    uint64_t low, high;
    std::memcpy(&low, encoded.bytes.data(), 8);
    std::memcpy(&high, encoded.bytes.data() + 8, 8);
    const uint64_t hash = (low ^ high * 0x9e37'79b9'7f4a'7c15) * 0x9e37'79b9'7f4a'7c15;
    Slot& slot = slots_[hash >> 32 & (slots_.size() - 1)];
    const size_t index = static_cast<size_t>(&slot - slots_.data()) + 1;
    if (!(slot.encoded == encoded)) {
      write(writable_ + index * slot_size, encoded, through_rdi);
      slot.encoded = encoded;
    }
    return reinterpret_cast<NativeCode>(reinterpret_cast<uintptr_t>(executable_ + index * slot_size));
  }

 private:
  static constexpr size_t slot_size = 128, slot_count = 1024, size = slot_size * (slot_count + 1);

  struct Slot {
    Encoded encoded;
  };

  static void write(uint8_t* at, const Encoded& encoded, bool through_rdi) {
    const auto put = [&](std::span<const uint8_t> bytes) {
      std::memcpy(at, bytes.data(), bytes.size());
      at += bytes.size();
    };
    static constexpr std::array<uint8_t, 24> before = {0x53,                    // push rbx
                                                       0x48, 0x8b, 0x07,        // mov rax, [rdi]
                                                       0x48, 0x8b, 0x4f, 0x08,  // mov rcx, [rdi+8]
                                                       0x48, 0x8b, 0x57, 0x10,  // mov rdx, [rdi+16]
                                                       0x48, 0x8b, 0x5f, 0x18,  // mov rbx, [rdi+24]
                                                       0x48, 0x8b, 0x77, 0x20,  // mov rsi, [rdi+32]
                                                       0xff, 0x77, 0x28,        // push qword [rdi+40]
                                                       0x9d};                   // popfq
    static constexpr std::array<uint8_t, 3> exchange = {0x48, 0x87, 0xf7};      // xchg rdi, rsi
    static constexpr std::array<uint8_t, 21> after = {0x9c,                     // pushfq
                                                      0x8f, 0x47, 0x28,         // pop qword [rdi+40]
                                                      0x48, 0x89, 0x07,         // mov [rdi], rax
                                                      0x48, 0x89, 0x4f, 0x08,   // mov [rdi+8], rcx
                                                      0x48, 0x89, 0x57, 0x10,   // mov [rdi+16], rdx
                                                      0x48, 0x89, 0x5f, 0x18,   // mov [rdi+24], rbx
                                                      0x5b, 0xc3};              // pop rbx; ret
    put(before);
    if (through_rdi) put(exchange);
    put({encoded.bytes.data(), encoded.size});
    if (through_rdi) put(exchange);
    put(after);
  }

  uint8_t* writable_ = nullptr;
  const uint8_t* executable_ = nullptr;
  std::array<Slot, slot_count> slots_{};
};

// Between the two transfers of state nothing may touch a vector register.
[[gnu::target("general-regs-only"), gnu::noinline]] void run_live(Cpu& cpu, NativeCode code, NativeBlock& block) {
  fpu_bring_back(cpu);
  code(&block);
  fpu_put_away(cpu);
}

std::array<struct sigaction, 65> previous;

void on_signal(int number, siginfo_t* info, void* context) {
  if (recover_native_thunk(context)) return;
  const struct sigaction& old = previous[static_cast<size_t>(number)];
  if (old.sa_flags & SA_SIGINFO) {
    old.sa_sigaction(number, info, context);
  } else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) {
    old.sa_handler(number);
  } else {
    // Comes again at the same instruction, with the default action.
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    sigaction(number, &action, nullptr);
  }
}

}  // namespace

bool recover_native_thunk(void* ucontext) {
  auto& registers = static_cast<ucontext_t*>(ucontext)->uc_mcontext.gregs;
  const auto* rip = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
  if (running.code == nullptr || rip < running.code || rip >= running.code + running.size) return false;
  running.raised = static_cast<int>(registers[REG_TRAPNO]);
  registers[REG_RIP] = reinterpret_cast<greg_t>(running.code);
  return true;
}

void install_native_signals() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    for (const int number : {SIGFPE, SIGSEGV, SIGILL})
      sigaction(number, &action, &previous[static_cast<size_t>(number)]);
  });
}

NativeCode native_code(const Instruction& in, unsigned code_bits) {
  static thread_local const auto thunks = std::make_unique<Thunks>();
  Encoded encoded;
  if (!encode(encoded, in, code_bits)) return nullptr;
  const bool through_rdi = in.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || in.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
                           in.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
  return thunks->find(encoded, through_rdi);
}

int run_native(Cpu& cpu, NativeCode code, NativeBlock& block) {
  running.raised = native_completed;
  run_live(cpu, code, block);
  return running.raised;
}

}  // namespace caisson::jit
