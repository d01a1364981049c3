// Makes the host code of one block: reads guest instructions up to a control transfer or the page's end, finds out
// which flags live where, and emits.
//   Design   docs/jit.md
//   Threads  the vCPU's own, code lock held (it writes at the cache's write position)
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "jit/cache/code_cache.h"
#include "jit/translate/classify.h"
#include "jit/translate/departure.h"
#include "jit/translate/emitter.h"
#include "jit/translate/rewrite.h"
#include "jit/translate/stubs.h"

namespace caisson::jit {

// The guest's code: the bytes of its page (a copy or, with writers locked out, the page itself), and of the page that
// follows in linear addresses, where that can be translated too.
struct CodeBytes {
  std::span<const uint8_t, page_size> page;
  const uint8_t* next = nullptr;
  Gpa next_page = 0;
  bool next_known = false;  // whether there is one has been looked up
};

// Where a relative jump leads; `next`: address of the instruction behind it.
[[nodiscard]] inline uint64_t relative_target(const Instruction& in, uint64_t next) {
  return next + in.operands[0].immediate;
}

class BlockBuilder {
 public:
  // Bytes that a block's code can take at most.
  static constexpr size_t room_needed = 32 << 10;
  static constexpr unsigned max_instructions = 64;
  static constexpr unsigned max_side_exits = 3;  // conditional jumps that are not the block's last instruction

  // `off`: what not to do, see off in classify.h.
  BlockBuilder(const Stubs& stubs, uint32_t off) : stubs_(stubs), off_(off) {}

  // The block starts at key.rip's offset in the page. `now`: to guess from what its registers point to. False: the last
  // instruction goes on on the next page, and whether there is one is not known.
  [[nodiscard]] bool build(CodeCache& cache, const BlockKey& key, const CodeBytes& code, const Cpu& now);

  [[nodiscard]] const Block& block() const { return block_; }
  [[nodiscard]] const std::vector<HostPoint>& points() const { return points_; }

 private:
  struct Item {
    Instruction in;
    Kind kind = Kind::Interpret;
    FlagUse use;
    uint16_t offset = 0;    // from the block's start
    uint32_t live_in = 0;   // status flags that matter before it
    uint32_t live_out = 0;  // and after it
    // Windows that its explicit memory operand and its access through the stack lie in, or none.
    static constexpr uint8_t no_window = 0xff;
    uint8_t operand_window = no_window, stack_window = no_window;
  };
  // Several accesses through the same base and index registers, which are changed by constants only: all are checked
  // with the first.
  struct Window {
    uint8_t base = Operand::no_register, index = Operand::no_register, scale = 1;  // guest registers
    bool live = true;          // while windows are planned: the registers are what they were, but for `moved`
    int64_t moved = 0;         // what was added to the address since the first access
    int32_t from = 0, to = 0;  // bytes, from the address at the first access
    bool write = false;
    bool open = false;  // the check was emitted: the addend is in Cpu::windows
    bool gs = false;    // or in the host's GS
    uint8_t uses = 0;
    uint8_t slot = 0;
  };
  [[nodiscard]] static bool is_stack(const Window& window) {
    return window.base == x86::Rsp && window.index == Operand::no_register;
  }
  // Where the guest's status flags are at a point of the emitted code.
  enum class Flags : uint8_t { InEflags, InMemory };

  struct Cold {
    enum class What : uint8_t { Fill, Window, Fpu, Exit, Poll, Lookup, Interpret, Mirror, Careful } what;
    size_t from = 0;             // rel32 offset that jumps here
    size_t back = 0;             // code offset to return to
    Address address{};           // Fill: how to compute the linear address again
    bool address_saved = false;  // Fill: it stands in Cpu::scratch[0]
    Window window{};             // Window
    IndirectBranch branch{};     // Lookup
    uint32_t word = 0;           // Fill
    uint64_t target = 0;         // Exit: guest address to go on at; Poll: too
    bool cross_page = false;
    bool flags_in_memory = false;
  };

  [[nodiscard]] bool read_items(const BlockKey& key, const CodeBytes& code);
  void plan_windows();
  void use_window(Item& item, uint8_t Item::*which, const Operand& address, unsigned size, bool write);
  void find_live_flags(const BlockKey& key, std::span<const uint8_t, page_size> page);
  // As decode(), for the instruction at this distance from the block's first.
  [[nodiscard]] DecodeStatus decode_at(std::span<const uint8_t> bytes, uint64_t distance, Instruction& out) const;
  [[nodiscard]] uint32_t flags_live_at(uint64_t rip, std::span<const uint8_t, page_size> page);

  void emit_item(Emitter& out, const Item& item);
  void emit_next_page_guard(Emitter& out, const Item& item);
  void emit_native(Emitter& out, const Item& item);
  [[nodiscard]] static bool borrow_registers(const Instruction& in, unsigned count, std::array<int, 2>& out);
  void emit_push(Emitter& out, const Item& item);
  void emit_pop(Emitter& out, const Item& item);
  void emit_leave(Emitter& out, const Item& item);
  void emit_interrupt_flag(Emitter& out, const Item& item);
  void emit_push_flags(Emitter& out, const Item& item);
  void emit_read_time(Emitter& out, const Item& item);
  void emit_bit_test(Emitter& out, const Item& item);
  void emit_string(Emitter& out, const Item& item);
  void emit_string_element(Emitter& out, const Item& item, unsigned size, bool move);
  void emit_end(Emitter& out, const Item& item);
  void emit_jump_if(Emitter& out, const Item& item);
  void emit_swap_gs(Emitter& out);
  void emit_access_check_flag(Emitter& out, const Item& item);
  void emit_clear_direction(Emitter& out, const Item& item);
  void emit_system(Emitter& out, const Item& item);
  void emit_cold(Emitter& out);

  // Operand address after the check: what an instruction may use as its memory operand.
  Address emit_check(Emitter& out, const Item& item, const Operand& memory, unsigned size, bool write, bool collapse);
  void leave_if_split(Emitter& out, const Item& item, const Address& address, unsigned size);
  Address emit_stack_check(Emitter& out, const Item& item, int base, int32_t disp, unsigned size, bool write);
  Cold& look_up(Emitter& out, const Item& item, unsigned size, bool write);
  Address check_simple(Emitter& out, const Item& item, const Address& ea, unsigned size, bool write, bool collapse);
  // The same in mirrored address spaces: no check, and EFLAGS stay as they are.
  Address mirror_address(Emitter& out, const Item& item, const Operand& memory, bool collapse);
  Address mirror_window(Emitter& out, const Item& item, Window& window, int32_t disp, bool collapse);
  // How to reach what lies at a linear address: by the addend in T1 from a table of all regions, or that of the region
  // which the address was compared with, or through GS, which has that of one half.
  enum class Reach : uint8_t { Table, Region, Gs };
  // Of the linear address in `reg`; `guess`: where it will lie.
  Reach mirror_reach(Emitter& out, const Item& item, int reg, unsigned guess, bool gs_possible = true);
  void load_addend(Emitter& out, int to, int linear, size_t table);
  [[nodiscard]] unsigned guess_half(unsigned base) const { return base < 16 ? upper_ >> base & 1 : own_half_; }
  // How that lies in T1 or GS, with the register and a displacement.
  [[nodiscard]] static Address reached(Reach how, int reg, int32_t disp);
  void first_guesses(const Cpu& now);
  void learn(const Item& item);
  [[nodiscard]] unsigned gs_half() const { return block_.key.mode & mode_bits::mirror_upper ? 1 : 0; }
  void go_on_carefully(Emitter& out, const Cold& cold);
  void emit_other_region(Emitter& out, const Cold& cold);
  // Mirrored code keeps the address that RSP has on the host, see mirrored.cpp.
  [[nodiscard]] bool by_stack_pointer(const Operand& memory) const {
    return mirrored() && memory.base == x86::Rsp && memory.index == Operand::no_register && memory.segment < x86::Fs;
  }
  [[nodiscard]] bool moves_stack_a_little(const Item& item) const;
  void prove_stack(Emitter& out);
  void set_stack_pointer(Emitter& out, int from);
  [[nodiscard]] bool may_set_stack_pointer(const Instruction& in) const;
  void emit_mirrored_leave(Emitter& out);
  // Not in a host register under its own name: to be loaded and stored by load_guest() and store_guest().
  [[nodiscard]] bool apart(unsigned guest) const { return spilled(guest) || (guest == x86::Rsp && mirrored()); }
  Address collapse_if(Emitter& out, const Item& item, const Address& address, bool collapse);
  Address window_address(Emitter& out, const Window& window, int32_t disp);
  Address check_window(Emitter& out, const Item& item, Window& window, int32_t disp, bool collapse);
  [[nodiscard]] bool restores_flags(const Item& item) const;
  Address check_computed(Emitter& out, const Item& item, unsigned size, bool write);  // linear address in T0
  void free_flags(Emitter& out, const Item& item);  // before code that destroys EFLAGS
  void flags_to_eflags(Emitter& out);               // uses T1
  void flags_for(Emitter& out, const Item& item);   // before the instruction itself
  void flags_after(const Item& item);
  void save_flags(Emitter& out);

  int load_guest(Emitter& out, unsigned guest, int scratch);  // host register that holds it (the scratch if apart)
  void store_guest(Emitter& out, unsigned guest, int from);   // of one that is apart, from a scratch register
  // Adds a constant to a 64-bit register and does nothing else to general registers.
  [[nodiscard]] static bool moves_by_constant(const Instruction& in, unsigned& reg, int64_t& by);
  // A linear address of code into a register: relative to the running page in user code.
  void code_address(Emitter& out, int reg, uint64_t address);
  void linear_to_t0(Emitter& out, const Item& item, const Operand& memory);
  void leave_if_not(Emitter& out, const Item& item, unsigned condition);  // to the interpreter, in the cold part
  // Direct jump, chained if possible; `live`: the status flags that matter there.
  void exit_to(Emitter& out, uint64_t target, uint32_t live);
  // T0 = target; `undo`: what takes the branch's change of RSP back.
  void exit_indirect(Emitter& out, const Item& item, int32_t undo);
  [[nodiscard]] bool passes_flags_through() const;
  // The first thing behind the entry is a look at Cpu::exit_request.
  [[nodiscard]] bool polls_first() const {
    return leads_back(items_.back()) && items_.front().live_in == 0 && !passes_flags_through();
  }
  void emit_entries(Emitter& out);
  void leave_to_interpreter(Emitter& out, uint64_t rip);
  // `slot`: offset of the rel32 that is to be chained, or 0.
  void depart(Emitter& out, Departure departure, uint64_t target, size_t slot);
  [[nodiscard]] bool same_page(uint64_t target) const {
    return (target ^ block_.key.rip) < page_size && (target ^ block_.key.rip) >> 12 == 0;
  }
  [[nodiscard]] bool leads_back(const Item& item) const;  // a direct jump to itself or before
  [[nodiscard]] bool user() const {
    return (block_.key.mode & mode_bits::tlb_mask) == static_cast<unsigned>(TlbMode::User);
  }
  [[nodiscard]] bool mirrored() const { return (block_.key.mode & mode_bits::mirror) != 0; }
  // EFLAGS or memory hold the guest's status flags from here on, in the middle of an instruction that may yet fault.
  void flags_moved(Emitter& out);
  [[nodiscard]] uint64_t rip_after(const Item& item) const { return block_.key.rip + item.offset + item.in.length; }

  const Stubs& stubs_;
  const uint32_t off_;
  Block block_;
  std::vector<Item> items_;
  std::vector<Window> windows_;
  std::vector<Cold> cold_;
  std::vector<HostPoint> points_;
  Flags flags_ = Flags::InEflags;
  bool fpu_checked_ = false;
  bool code_proven_ = false;   // the running page is where GS leads
  bool stack_proven_ = false;  // mirrored code has accessed the stack, so it is where it should be
  bool gave_up_ = false;       // an instruction turned out to be inexpressible: the block ends before it
  unsigned peeks_ = 0;
  const DecodeCache* decoded_ = nullptr;  // what the interpreter has decoded, or null
  uint64_t rip_ = 0;                      // linear address of the block's first instruction
  unsigned own_half_ = 0;                 // where the code itself stands (mmu/mirror.h)
  uint16_t upper_ = 0;                    // guest registers that point to the upper half, probably
};

}  // namespace caisson::jit
