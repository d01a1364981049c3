// The host CPU is the oracle: random user-mode instructions with random state run natively in this process and in the
// interpreter; registers, flags, memory, vector state and exceptions must agree.
//   The native side loads every register from a block at a fixed low address, runs the one instruction, and stores
//   every register back; a signal ends it with the vector that the kernel reports.
#include <cpuid.h>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <random>

#include <sys/mman.h>
#include <ucontext.h>

#include <Zydis/Zydis.h>

#include "jit/interpret/fpu_state.h"
#include "jit/interpret/native_thunk.h"
#include "jit/interpret/test_machine.h"

namespace caisson::jit::test {
namespace {

using namespace x86;

constexpr uint64_t block_address = 0x1800'0000, code_address = 0x1810'0000, data_address = 0x1000'0000;
constexpr size_t data_size = 0x4000, middle = 0x2000;

// Offsets in the block.
constexpr uint32_t gpr_at = 0, flags_at = 128, host_rsp_at = 136, stack_at = 4096 * 2 - 64, xsave_at = 0x4000;
constexpr size_t block_size = 0x8000;

struct State {
  std::array<uint64_t, 16> gpr{};
  uint64_t flags = 0;
  std::array<uint8_t, data_size> data{};
  std::vector<uint8_t> xsave;
  int vector = -1;
};

int raised;
uint64_t landing;

void on_signal(int, siginfo_t*, void* context) {
  if (recover_native_thunk(context)) return;
  auto& regs = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  raised = static_cast<int>(regs[REG_TRAPNO]);
  regs[REG_RIP] = static_cast<greg_t>(landing);
  regs[REG_EFL] &= ~0x40000;  // AC
}

class Native {
 public:
  Native() {
    install_native_signals();  // before these, so that they are there again afterwards
    map(block_address, block_size, PROT_READ | PROT_WRITE);
    map(code_address, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC);
    map(data_address, data_size, PROT_READ | PROT_WRITE);
    stack_t stack{};
    stack.ss_size = 1 << 16;
    stack.ss_sp = std::malloc(stack.ss_size);
    sigaltstack(&stack, nullptr);
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (const int number : {SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGTRAP})
      sigaction(number, &action, &old_[static_cast<size_t>(number)]);
  }
  ~Native() {
    for (const int number : {SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGTRAP})
      sigaction(number, &old_[static_cast<size_t>(number)], nullptr);
    stack_t stack{};
    stack.ss_flags = SS_DISABLE;
    stack_t previous{};
    sigaltstack(nullptr, &previous);
    sigaltstack(&stack, nullptr);
    std::free(previous.ss_sp);
    munmap(reinterpret_cast<void*>(block_address), block_size);
    munmap(reinterpret_cast<void*>(code_address), 0x1000);
    munmap(reinterpret_cast<void*>(data_address), data_size);
  }

  // Address at which the instruction under test stands (the interpreter puts it at the same one).
  uint64_t instruction_address(bool vectors, unsigned bits) {
    return bits == 64 ? emit({}, vectors) : emit32({}, vectors);
  }

  void run(std::span<const uint8_t> instruction, State& state, bool vectors, unsigned bits) {
    bits == 64 ? emit(instruction, vectors) : emit32(instruction, vectors);
    auto* block = reinterpret_cast<uint8_t*>(block_address);
    std::memcpy(block + gpr_at, state.gpr.data(), 128);
    std::memcpy(block + flags_at, &state.flags, 8);
    std::memcpy(reinterpret_cast<void*>(data_address), state.data.data(), data_size);
    if (vectors) std::memcpy(block + xsave_at, state.xsave.data(), state.xsave.size());
    raised = -1;
    reinterpret_cast<void (*)()>(code_address)();
    std::memcpy(state.gpr.data(), block + gpr_at, 128);
    std::memcpy(&state.flags, block + flags_at, 8);
    std::memcpy(state.data.data(), reinterpret_cast<void*>(data_address), data_size);
    if (vectors) std::memcpy(state.xsave.data(), block + xsave_at, state.xsave.size());
    state.vector = raised;
  }

 private:
  static void map(uint64_t address, size_t size, int protection) {
    void* at = mmap(reinterpret_cast<void*>(address), size, protection,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    ASSERT_EQ(at, reinterpret_cast<void*>(address));
  }

  static void put(uint8_t*& at, std::initializer_list<uint8_t> list, uint64_t address) {
    for (const uint8_t byte : list) *at++ = byte;
    const uint32_t narrow = static_cast<uint32_t>(address);
    std::memcpy(at, &narrow, 4);
    at += 4;
  }

  static void load_vectors(uint8_t*& at) {
    put(at, {0xb8}, 0xff);                                                          // mov eax, 0ffh
    put(at, {0x31, 0xd2, 0x48, 0x0f, 0xae, 0x2c, 0x25}, block_address + xsave_at);  // xor edx, edx; xrstor64 [abs]
  }

  static void store_vectors(uint8_t*& at) {
    const uint32_t mxcsr = 0x1f80;
    std::memcpy(reinterpret_cast<uint8_t*>(block_address) + stack_at + 16, &mxcsr, 4);
    put(at, {0xb8}, 0xff);
    put(at, {0x31, 0xd2, 0x48, 0x0f, 0xae, 0x24, 0x25}, block_address + xsave_at);  // xsave64 [abs]
    put(at, {0xdb, 0xe3, 0x0f, 0xae, 0x14, 0x25}, block_address + stack_at + 16);   // fninit; ldmxcsr [abs]
  }

  uint64_t emit(std::span<const uint8_t> instruction, bool vectors) {
    uint8_t* at = reinterpret_cast<uint8_t*>(code_address);
    const auto bytes = [&](std::initializer_list<uint8_t> list) {
      for (const uint8_t byte : list) *at++ = byte;
    };
    const auto absolute = [&](uint8_t rex, uint8_t opcode, unsigned reg, uint32_t offset) {
      bytes(
          {static_cast<uint8_t>(rex | (reg >= 8 ? 4 : 0)), opcode, static_cast<uint8_t>(0x04 | (reg & 7) << 3), 0x25});
      const uint32_t address = static_cast<uint32_t>(block_address) + offset;
      std::memcpy(at, &address, 4);
      at += 4;
    };
    const auto stack = [&] { absolute(0x48, 0x8b, Rsp, stack_at); };  // mov rsp, [block+stack_at]
    const uint64_t own_stack = block_address + stack_at;
    std::memcpy(reinterpret_cast<uint8_t*>(block_address) + stack_at, &own_stack, 8);
    bytes({0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57});  // push rbx rbp r12-r15
    absolute(0x48, 0x89, Rsp, host_rsp_at);
    if (vectors) load_vectors(at);
    stack();
    absolute(0x48, 0xff, 6, flags_at);  // push qword [flags]
    bytes({0x9d});                      // popfq
    for (unsigned reg = 0; reg < 16; ++reg) absolute(0x48, 0x8b, reg, gpr_at + 8 * reg);
    const uint64_t where = reinterpret_cast<uint64_t>(at);
    for (const uint8_t byte : instruction) *at++ = byte;
    landing = reinterpret_cast<uint64_t>(at);
    for (unsigned reg = 0; reg < 16; ++reg) absolute(0x48, 0x89, reg, gpr_at + 8 * reg);
    stack();
    bytes({0x9c});  // pushfq
    absolute(0x48, 0x8f, 0, flags_at);
    bytes({0xfc});
    if (vectors) store_vectors(at);
    absolute(0x48, 0x8b, Rsp, host_rsp_at);
    bytes({0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3});
    return where;
  }

  // Compatibility mode: there by a far jump to the kernel's 32-bit user segment, back by another.
  uint64_t emit32(std::span<const uint8_t> instruction, bool vectors) {
    uint8_t* at = reinterpret_cast<uint8_t*>(code_address);
    const auto bytes = [&](std::initializer_list<uint8_t> list) {
      for (const uint8_t byte : list) *at++ = byte;
    };
    const auto dword = [&](uint64_t value) {
      const uint32_t narrow = static_cast<uint32_t>(value);
      std::memcpy(at, &narrow, 4);
      at += 4;
    };
    const auto absolute64 = [&](uint8_t opcode, unsigned reg, uint32_t offset) {
      bytes({0x48, opcode, static_cast<uint8_t>(0x04 | reg << 3), 0x25});
      dword(block_address + offset);
    };
    const auto absolute32 = [&](uint8_t opcode, unsigned reg, uint32_t offset) {
      bytes({opcode, static_cast<uint8_t>(0x05 | reg << 3)});
      dword(block_address + offset);
    };
    const uint64_t own_stack = block_address + stack_at;
    std::memcpy(reinterpret_cast<uint8_t*>(block_address) + stack_at, &own_stack, 8);
    bytes({0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57});
    absolute64(0x89, Rsp, host_rsp_at);
    absolute64(0x8b, Rsp, stack_at);
    bytes({0xb8, 0x2b, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0});  // mov eax, 2bh; mov ds, eax; mov es, eax
    if (vectors) load_vectors(at);
    bytes({0x6a, 0x23});  // push 23h
    bytes({0x68});
    dword(reinterpret_cast<uint64_t>(at) + 6);  // push the address after retfq
    bytes({0x48, 0xcb});                        // retfq
    absolute32(0xff, 6, flags_at);
    bytes({0x9d});
    for (unsigned reg = 0; reg < 8; ++reg) absolute32(0x8b, reg, gpr_at + 8 * reg);
    const uint64_t where = reinterpret_cast<uint64_t>(at);
    for (const uint8_t byte : instruction) *at++ = byte;
    landing = reinterpret_cast<uint64_t>(at);
    for (unsigned reg = 0; reg < 8; ++reg) absolute32(0x89, reg, gpr_at + 8 * reg);
    absolute32(0x8b, Rsp, stack_at);
    bytes({0x9c});
    absolute32(0x8f, 0, flags_at);
    bytes({0xfc, 0xea});  // cld; jmp 33h:next
    dword(reinterpret_cast<uint64_t>(at) + 6);
    bytes({0x33, 0});
    if (vectors) store_vectors(at);
    absolute64(0x8b, Rsp, host_rsp_at);
    bytes({0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3});
    return where;
  }

  std::array<struct sigaction, 65> old_{};
};

class Differential : public testing::Test {
 protected:
  Machine machine;
  Native native;
  std::mt19937_64 random{std::getenv("CAISSON_SEED") ? std::strtoull(std::getenv("CAISSON_SEED"), nullptr, 0) : 12345};

  unsigned bits_ = 64;  // of the code under test
  bool prepared_ = false;
  std::array<Segment, 6> code_segments_{};

  uint64_t pick(uint64_t below) { return random() % below; }

  uint64_t random_value() {
    switch (pick(8)) {
      case 0: return 0;
      case 1: return ~uint64_t{0};
      case 2: return uint64_t{1} << pick(64);
      case 3: return (uint64_t{1} << pick(64)) - 1;
      case 4: return pick(256);
      case 5: return static_cast<uint64_t>(-static_cast<int64_t>(pick(256)));
      default: return random();
    }
  }

  State random_state() {
    State state;
    for (uint64_t& reg : state.gpr) reg = random_value();
    state.gpr[Rsp] = data_address + middle + pick(64) * 8;
    if (bits_ == 32) {
      for (uint64_t& reg : state.gpr) reg &= 0xffff'ffff;
    }
    state.flags = 0x202 | (random() & rflags::status);
    if (pick(8) == 0) state.flags |= rflags::df;
    for (size_t i = 0; i < data_size; i += 8) {
      const uint64_t value = pick(4) == 0 ? random_value() : random();
      std::memcpy(state.data.data() + i, &value, 8);
    }
    return state;
  }

  // Makes the memory operand point into the data area (now and then elsewhere). False where that cannot be.
  bool aim(const Instruction& in, State& state) {
    const Operand* memory = in.memory();
    if (memory == nullptr) return true;
    if (memory->vsib) return memory->base < 16 && memory->base != Rsp;
    if (memory->base >= 16 || memory->base == Rsp) return false;
    if (memory->base == memory->index) return false;
    uint64_t target = data_address + middle + pick(256) - 128;
    if (pick(3) != 0) target &= ~uint64_t{63};
    if (memory->index < 16)
      state.gpr[memory->index] = pick(2) ? pick(16) : static_cast<uint64_t>(-static_cast<int64_t>(pick(16)));
    if (memory->index == Rsp) return false;
    uint64_t base = target - static_cast<uint64_t>(memory->displacement);
    if (memory->index < 16) base -= state.gpr[memory->index] * memory->scale;
    if (in.address_bits == 16) return false;
    if (in.address_bits == 32) base &= 0xffff'ffff;
    if (pick(200) == 0 && in.address_bits == 64)
      base = pick(2) ? 0x7000'0000'0000 + pick(0x1000) : random() | uint64_t{1} << 62;
    state.gpr[memory->base] = base;
    return true;
  }

  void interpret(std::span<const uint8_t> instruction, uint64_t at, State& state, bool vectors) {
    Cpu& cpu = machine.cpu();
    if (!prepared_) {
      machine.long_mode(true);
      map_like_host();
      code_segments_ = cpu.segments;
      prepared_ = true;
    }
    cpu.segments = code_segments_;
    if (bits_ == 32) cpu.segments[Cs].attributes = 0xc0fb;
    update_mode(cpu);
    cpu.gpr = state.gpr;
    cpu.rflags = state.flags;
    cpu.rip = at;
    ASSERT_TRUE(machine.memory().write(at, instruction));
    ASSERT_TRUE(machine.memory().write(data_address, state.data));
    if (vectors) std::memcpy(cpu.xsave.data(), state.xsave.data(), state.xsave.size());
    unsigned steps = 0;
    StepResult result;
    do {
      result = step(cpu);
    } while (result == StepResult::Done && cpu.rip == at && ++steps < 100);
    ASSERT_EQ(result, StepResult::Done);
    if (const auto vector = machine.taken()) {
      const auto frame = machine.frame();
      state.vector = static_cast<int>(*vector);
      state.gpr = cpu.gpr;
      state.gpr[Rsp] = frame.rsp;
      state.flags = frame.rflags & ~rflags::rf;
      EXPECT_EQ(frame.rip, at);
    } else {
      state.vector = -1;
      state.gpr = cpu.gpr;
      state.flags = cpu.rflags;
      EXPECT_EQ(cpu.rip, at + instruction.size());
    }
    ASSERT_TRUE(machine.memory().read(data_address, state.data));
    if (vectors) std::memcpy(state.xsave.data(), cpu.xsave.data(), state.xsave.size());
  }

  // User code reaches the data area and its own page, nothing else.
  void map_like_host() {
    constexpr uint64_t table = 0x40000, directory = Machine::page_tables + 0x2000;
    for (uint64_t i = 0; i < 512; ++i) machine.put<uint64_t>(directory + 8 * i, i << 21 | 0x83);
    machine.put<uint64_t>(directory + 8 * (code_address >> 21), (code_address >> 21 << 21) | 0x87);
    machine.put<uint64_t>(directory + 8 * (data_address >> 21), table | 7);
    for (uint64_t i = 0; i < 512; ++i) {
      machine.put<uint64_t>(table + 8 * i, i < data_size >> 12 ? (data_address + (i << 12)) | 7 : 0);
    }
    mmu::flush_all(machine.cpu());
  }

  [[nodiscard]] std::string describe(std::span<const uint8_t> bytes, uint64_t at) const {
    ZydisDisassembledInstruction text;
    std::string hex;
    for (const uint8_t byte : bytes) hex += fmt::format("{:02x} ", byte);
    if (ZYAN_SUCCESS(ZydisDisassembleIntel(bits_ == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LEGACY_32, at,
                                           bytes.data(), bytes.size(), &text)))
      hex += text.text;
    return hex;
  }

  // Flags that an instruction leaves undefined and that the interpreter does not copy from the host.
  static uint64_t ignored_flags(const Instruction& in) {
    switch (in.category) {
      // The host leaves OF and AF otherwise by an immediate count than by CL.
      case ZYDIS_CATEGORY_SHIFT:
      case ZYDIS_CATEGORY_ROTATE: return rflags::of | rflags::af;
      case ZYDIS_CATEGORY_DECIMAL: return in.flags_undefined;  // differs between vendors
      default: break;
    }
    return in.mnemonic == ZYDIS_MNEMONIC_DIV || in.mnemonic == ZYDIS_MNEMONIC_IDIV ? rflags::status : 0;
  }

  bool compare(const Instruction& in, std::span<const uint8_t> bytes, const State& before, bool vectors) {
    const uint64_t at = native.instruction_address(vectors, bits_);
    State expected = before, actual = before;
    native.run(bytes, expected, vectors, bits_);
    interpret(bytes, at, actual, vectors);
    if (HasFatalFailure()) return false;
    if ((in.mnemonic == ZYDIS_MNEMONIC_FNSTENV || in.mnemonic == ZYDIS_MNEMONIC_FNSAVE) && expected.vector == -1) {
      // The interpreter stores null pointers.
      const Operand& memory = *in.memory();
      uint64_t at_data = before.gpr[memory.base] + static_cast<uint64_t>(memory.displacement) - data_address;
      if (memory.index < 16) at_data += before.gpr[memory.index] * memory.scale;
      if (in.address_bits == 32) at_data &= 0xffff'ffff;
      const unsigned first = in.operand_bits == 16 ? 6 : 12, end = in.operand_bits == 16 ? 14 : 28;
      std::fill_n(expected.data.begin() + static_cast<ptrdiff_t>(at_data + first), end - first, uint8_t{0});
    }
    if (vectors) {
      // Instruction and data pointers, and reserved bytes, are not compared.
      for (State* state : {&expected, &actual}) {
        std::fill(state->xsave.begin() + 6, state->xsave.begin() + 24, uint8_t{0});
        std::fill(state->xsave.begin() + 28, state->xsave.begin() + 32, uint8_t{0});
        std::fill(state->xsave.begin() + 416, state->xsave.begin() + 576, uint8_t{0});
      }
    }
    // An x87 store that an unmasked exception will suppress looks at its address first on AMD's processors only.
    const bool x87 = in.encoding == Encoding::Legacy && in.opcode_map == 0 && (in.opcode & 0xf8) == 0xd8;
    if (host_is_amd() && x87 && expected.vector != -1 && actual.vector == -1) return true;
    const uint64_t mask = (rflags::status | rflags::df) & ~(expected.vector == -1 ? ignored_flags(in) : 0);
    EXPECT_EQ(actual.vector, expected.vector);
    EXPECT_EQ(actual.flags & mask, expected.flags & mask);
    for (unsigned reg = 0; reg < 16; ++reg)
      EXPECT_EQ(actual.gpr[reg], expected.gpr[reg]) << "register " << reg << " was " << before.gpr[reg];
    EXPECT_TRUE(actual.data == expected.data);
    // What a gather that faults half-way leaves above its mask is the CPU's own affair.
    const bool half_done = in.memory() != nullptr && in.memory()->vsib && expected.vector != -1;
    // An MMX access that faults may have left x87 mode already, or not.
    const bool mmx_fault = expected.vector != -1 &&
                           std::any_of(in.operands.begin(), in.operands.begin() + in.operand_count,
                                       [](const Operand& operand) { return operand.reg_class == RegisterClass::Mmx; });
    if (actual.xsave != expected.xsave && !half_done && !mmx_fault) {
      for (size_t i = 0; i < actual.xsave.size(); ++i) {
        if (actual.xsave[i] != expected.xsave[i]) {
          ADD_FAILURE() << "xsave byte " << i << " is " << int{actual.xsave[i]} << ", host " << int{expected.xsave[i]}
                        << ", was " << int{before.xsave[i]};
          break;
        }
      }
    }
    if (!HasFailure()) return true;
    ADD_FAILURE() << describe(bytes, at)
                  << fmt::format(" flags before {:#x}, interpreter {:#x}, host {:#x}", before.flags, actual.flags,
                                 expected.flags);
    return false;
  }

  // A random instruction of the wanted kind. `simd`: vector instructions.
  bool random_instruction(bool simd, std::array<uint8_t, 15>& bytes, Instruction& in) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    unsigned at = 0;
    const auto put = [&](uint8_t byte) { bytes[at++] = byte; };
    const unsigned shape = static_cast<unsigned>(pick(simd ? 10 : 6));
    if (shape >= 6) {
      if (shape == 6) {
        put(0xc5);
        put(bytes[at]);
        return finish(simd, bytes, in);
      }
      if (shape == 7) {
        put(0xc4);
        put(static_cast<uint8_t>((random() & 0xe0) | (1 + pick(3))));
        return finish(simd, bytes, in);
      }
      put(0x62);
      put(static_cast<uint8_t>((random() & 0xf0) | (1 + pick(3))));
      put(bytes[at] | 4);
      return finish(simd, bytes, in);
    }
    if (!simd && shape == 5) {  // BMI
      put(0xc4);
      put(static_cast<uint8_t>((random() & 0xe0) | (2 + pick(2))));
      put(static_cast<uint8_t>(random() & 0xfb));
      put(static_cast<uint8_t>(0xf0 + pick(8)));
      return finish(simd, bytes, in);
    }
    constexpr std::array<uint8_t, 4> legacy = {0x66, 0xf2, 0xf3, 0xf0};
    if (pick(2)) put(legacy[pick(pick(2) ? 1 : 4)]);
    if (pick(16) == 0) put(0x67);
    if (bits_ == 64 && pick(2)) put(static_cast<uint8_t>(0x40 | pick(16)));
    if (simd ? shape < 4 : shape < 2) {
      put(0x0f);
      if (pick(3) == 0) put(pick(2) ? 0x38 : 0x3a);
    } else if (simd) {
      put(static_cast<uint8_t>(0xd8 + pick(8)));
    }
    return finish(simd, bytes, in);
  }

  static bool host_is_amd() {
    static const bool amd = [] {
      uint32_t eax, ebx = 0, ecx, edx;
      return __get_cpuid(0, &eax, &ebx, &ecx, &edx) != 0 && ebx == signature_AMD_ebx;
    }();
    return amd;
  }

  // Where AMD's processors do not what Intel's manual, and the interpreter, say: F3 90 with REX.B exchanges, PREFETCHW
  // with a register is no hint but undefined, and so is VEX.W for VPINSRD and VPEXTRD outside 64-bit mode.
  static bool amd_differs(const Instruction& in) {
    if (!host_is_amd()) return false;
    if (in.mnemonic == ZYDIS_MNEMONIC_PAUSE) return in.rex & 1;
    if (in.encoding == Encoding::Vex && in.opcode_map == 3 && (in.opcode == 0x22 || in.opcode == 0x16)) return true;
    return in.mnemonic == ZYDIS_MNEMONIC_NOP && in.opcode_map == 1 && in.opcode == 0x0d;
  }

  bool finish(bool simd, std::array<uint8_t, 15>& bytes, Instruction& in) {
    if (decode(bytes, bits_, in) != DecodeStatus::Ok || in.simd != simd) return false;
    if (in.privileged_or_system || in.encoding == Encoding::Xop || in.encoding == Encoding::Now3d) return false;
    switch (in.category) {
      case ZYDIS_CATEGORY_CALL:
      case ZYDIS_CATEGORY_COND_BR:
      case ZYDIS_CATEGORY_UNCOND_BR:
      case ZYDIS_CATEGORY_RET:
      case ZYDIS_CATEGORY_SEGOP:
      case ZYDIS_CATEGORY_RDRAND:
      case ZYDIS_CATEGORY_RDSEED:
      case ZYDIS_CATEGORY_XSAVE: return false;
      default: break;
    }
    if (amd_differs(in)) return false;
    switch (in.isa_set) {
      // The host may have them, the guest has not.
      case ZYDIS_ISA_SET_SSE4A:
      case ZYDIS_ISA_SET_CLZERO:
      case ZYDIS_ISA_SET_MONITORX:
      case ZYDIS_ISA_SET_AMX_BF16:
      case ZYDIS_ISA_SET_AMX_INT8:
      case ZYDIS_ISA_SET_AMX_TILE:
      case ZYDIS_ISA_SET_AVX512_BF16_128:
      case ZYDIS_ISA_SET_AVX512_BF16_256:
      case ZYDIS_ISA_SET_AVX512_BF16_512:
      case ZYDIS_ISA_SET_AVX512_FP16_128:
      case ZYDIS_ISA_SET_AVX512_FP16_128N:
      case ZYDIS_ISA_SET_AVX512_FP16_256:
      case ZYDIS_ISA_SET_AVX512_FP16_512:
      case ZYDIS_ISA_SET_AVX512_FP16_SCALAR:
      case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_128:
      case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_256:
      case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_512:
      case ZYDIS_ISA_SET_AVX_VNNI:
      case ZYDIS_ISA_SET_ENQCMD:
      case ZYDIS_ISA_SET_HRESET:
      case ZYDIS_ISA_SET_KEYLOCKER:
      case ZYDIS_ISA_SET_KEYLOCKER_WIDE:
      case ZYDIS_ISA_SET_MOVDIR:
      case ZYDIS_ISA_SET_PCONFIG:
      case ZYDIS_ISA_SET_PKU:
      case ZYDIS_ISA_SET_PT:
      case ZYDIS_ISA_SET_RTM:
      case ZYDIS_ISA_SET_SERIALIZE:
      case ZYDIS_ISA_SET_SGX:
      case ZYDIS_ISA_SET_TSX_LDTRK:
      case ZYDIS_ISA_SET_UINTR:
      case ZYDIS_ISA_SET_WAITPKG: return false;
      default: break;
    }
    for (unsigned i = 0; i < in.operand_count; ++i) {
      const Operand& operand = in.operands[i];
      if (operand.kind == Operand::Kind::Memory && (operand.segment == Fs || operand.segment == Gs)) return false;
      if (operand.kind == Operand::Kind::Memory && operand.base == Operand::rip_register) return false;
      if (operand.reg_class == RegisterClass::Segment) return false;
    }
    if (in.has_segment_override) return false;
    // With 16-bit addresses out of the mapped area; a mask of zeros may fault there or not.
    return !(in.address_bits == 16 &&
             (in.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || in.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
              in.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU));
  }

  // A random image of the whole FPU state.
  void random_vectors(State& state) {
    state.xsave.assign(xsave_area_size, 0);
    const auto put = [&](size_t at, auto value) { std::memcpy(state.xsave.data() + at, &value, sizeof value); };
    const auto fill = [&](size_t at, size_t size) {
      for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t value = random_value();
        if (pick(3) == 0) {
          const double number =
              static_cast<double>(static_cast<int64_t>(random())) * std::pow(2.0, static_cast<int>(pick(120)) - 100);
          const float half = static_cast<float>(number);
          if (pick(2)) {
            std::memcpy(&value, &number, 8);
          } else {
            std::memcpy(&value, &half, 4);
          }
        }
        put(at + i, value);
      }
    };
    uint16_t control = 0x37f;
    if (pick(8) == 0) control = static_cast<uint16_t>((random() & 0xf3f) | 0x40);
    put(0, control);
    put(2, static_cast<uint16_t>(pick(8) << 11 | (random() & 0x4700)));
    state.xsave[4] = pick(4) ? static_cast<uint8_t>(random()) : uint8_t{0};
    put(24, pick(8) ? uint32_t{0x1f80} : static_cast<uint32_t>((random() & 0xffbf) | (pick(2) ? 0x1f80 : 0)));
    for (unsigned i = 0; i < 8; ++i) {
      fill(32 + 16 * i, 8);
      if (pick(2)) state.xsave[32 + 16 * i + 7] |= 0x80;
      put(32 + 16 * i + 8, static_cast<uint16_t>(pick(2) ? 0x3fff + pick(80) - 40 : random()));
    }
    fill(160, 256);
    const uint64_t components = fpu_components();
    put(512, components);
    for (unsigned i = 2; i < 8; ++i) {
      if (components >> i & 1)
        fill(component(machine.cpu(), i).data() - machine.cpu().xsave.data(), component(machine.cpu(), i).size());
    }
    if (components >> 5 & 1) {
      const auto at = static_cast<size_t>(component(machine.cpu(), 5).data() - machine.cpu().xsave.data());
      for (unsigned i = 0; i < 8; ++i) put(at + 8 * i, pick(3) ? random() : random_value());
    }
  }

  // Indices of a gather or scatter that stay in the data area.
  void aim_vector(const Operand& memory, State& state) {
    Cpu& cpu = machine.cpu();
    if (memory.base < 16) state.gpr[memory.base] = data_address + middle - static_cast<uint64_t>(memory.displacement);
    if (memory.base >= 16) return;
    std::memcpy(cpu.xsave.data(), state.xsave.data(), state.xsave.size());
    VectorBytes indices = read_vector(cpu, memory.index);
    for (unsigned i = 0; i < 64; i += 4) {
      // Good as 32-bit indices, and in pairs (sign-extended) as 64-bit ones.
      int32_t index = static_cast<int32_t>(pick(400)) - 200;
      if (i % 8 == 4 && pick(2)) index = indices[i - 1] & 0x80 ? -1 : 0;
      std::memcpy(indices.data() + i, &index, 4);
    }
    write_vector(cpu, memory.index, indices, 64);
    std::memcpy(state.xsave.data(), cpu.xsave.data(), state.xsave.size());
  }

  void prepare(const Instruction& in, State& state) {
    switch (in.category) {
      case ZYDIS_CATEGORY_STRINGOP:
        state.gpr[Rsi] = data_address + middle + pick(64);
        state.gpr[Rdi] = data_address + middle + pick(64);
        state.gpr[Rcx] = pick(32);
        break;
      case ZYDIS_CATEGORY_BITBYTE:
        if (in.operands[1].kind == Operand::Kind::Register && in.memory() != nullptr) {
          if (in.operands[1].reg != in.memory()->base) state.gpr[in.operands[1].reg] &= 0x3ff;
        }
        break;
      default: break;
    }
    if (in.mnemonic == ZYDIS_MNEMONIC_LEAVE || in.mnemonic == ZYDIS_MNEMONIC_ENTER) {
      state.gpr[Rbp] = data_address + middle + 256 + pick(64) * 8;
    }
    if (in.mnemonic == ZYDIS_MNEMONIC_XLAT) state.gpr[Rbx] = data_address + middle;
    if (in.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || in.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
        in.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU) {
      state.gpr[Rdi] = data_address + middle + pick(64);
    }
    if (in.category == ZYDIS_CATEGORY_BINARY && pick(2) &&
        (in.mnemonic == ZYDIS_MNEMONIC_DIV || in.mnemonic == ZYDIS_MNEMONIC_IDIV)) {
      state.gpr[Rdx] = pick(2) ? 0 : pick(64);
    }
    if (in.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B || in.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B) {
      if (in.memory() != nullptr && pick(2))
        std::memset(state.data.data() + middle - 128, 0, 256), state.gpr[Rax] = state.gpr[Rdx] = 0;
    }
  }

  void run_random(unsigned bits, bool simd) {
    bits_ = bits;
    const char* given = std::getenv("CAISSON_ROUNDS");
    const unsigned wanted = given ? static_cast<unsigned>(std::strtoul(given, nullptr, 0)) : 20'000;
    unsigned done = 0;
    for (unsigned i = 0; done < wanted && i < 200 * wanted; ++i) {
      std::array<uint8_t, 15> bytes;
      Instruction in;
      if (!random_instruction(simd, bytes, in)) continue;
      State state = random_state();
      if (!aim(in, state)) continue;
      prepare(in, state);
      if (simd) random_vectors(state);
      if (const Operand* memory = in.memory(); memory != nullptr && memory->vsib) aim_vector(*memory, state);
      if (bits == 32) {
        for (unsigned reg = 0; reg < 16; ++reg) state.gpr[reg] = reg < 8 ? state.gpr[reg] & 0xffff'ffff : 0;
      }
      ++done;
      if (!compare(in, {bytes.data(), in.length}, state, simd)) return;
    }
    EXPECT_EQ(done, wanted);
  }
};

// What the decoder calls invalid the host must refuse, too: #UD.
TEST_F(Differential, InvalidEncodings) {
  for (const unsigned bits : {64u, 32u}) {
    for (unsigned i = 0; i < 300'000; ++i) {
      std::array<uint8_t, 15> bytes;
      Instruction in;
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
      constexpr std::array<uint8_t, 10> first = {0x66, 0xf2, 0xf3, 0xf0, 0x0f, 0x0f, 0x0f, 0xc4, 0xc5, 0x62};
      bytes[0] = first[pick(first.size())];
      if (pick(2) && bytes[0] < 0x10) bytes[1] = pick(2) ? 0x38 : 0x3a;
      if (pick(2) && bytes[0] > 0x60 && bytes[0] != 0x62) bytes[1] = 0x0f;
      if (decode(bytes, bits, in) != DecodeStatus::Invalid) continue;
      std::string hex;
      for (const uint8_t byte : bytes) hex += fmt::format("{:02x} ", byte);
      // On AMD's processors LOCK MOV CR0 is CR8 (AltMovCr8, which no CPU model offers), VERR and VERW do not mind LOCK,
      // 8F may be XOP, VEX.W does not count for VPERMQ, and prefixes before EVEX are let pass: these would run, and the
      // random bytes behind them.
      const bool at_home = hex.find("f0 0f 2") != std::string::npos || hex.find("f0 0f 00") != std::string::npos ||
                           hex.find("8f ") != std::string::npos || hex.find("62 ", 3) != std::string::npos ||
                           (bytes[0] == 0xc4 && (bytes[1] & 0x1f) == 3);
      if (host_is_amd() && at_home) continue;
      State state = random_state();
      for (uint64_t& reg : state.gpr) reg = data_address + middle;
      native.run(bytes, state, false, bits);
      if (state.vector == Ud) continue;
      if (hex.find("0f 01 c") != std::string::npos && state.vector == Gp) continue;  // VMX on a host that has it
      ADD_FAILURE() << bits << " bits: " << hex << ": the host says " << state.vector;
      if (std::getenv("CAISSON_ALL") == nullptr) return;
    }
  }
}

TEST_F(Differential, IntegerInstructions) { run_random(64, false); }
TEST_F(Differential, IntegerInstructionsIn32BitMode) { run_random(32, false); }

TEST_F(Differential, VectorInstructions) {
  if (fpu_components() == 0) GTEST_SKIP() << "the host has no XSAVE";
  run_random(64, true);
}

TEST_F(Differential, VectorInstructionsIn32BitMode) {
  if (fpu_components() == 0) GTEST_SKIP() << "the host has no XSAVE";
  run_random(32, true);
}

}  // namespace
}  // namespace caisson::jit::test
