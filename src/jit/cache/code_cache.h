// Translated code: the memory it stands in, the blocks, and which guest bytes they come from.
//   Memory   one memfd mapped twice: writable and executable, never both in one mapping. Blocks are laid down one
//   behind the
//            other; dead ones are not reused; when the cache is full everything is dropped while no vCPU runs guest
//            code.
//   Dying    a block dies by one atomic store that turns its entry into a jump to its own "stale" exit, so whatever
//   still
//            points to it (jump caches, a vCPU on its way) lands in the dispatcher; jumps chained to it are taken back.
//   Threads  any; everything takes the code lock inside unless it says otherwise.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "jit/cache/block_index.h"
#include "memory/guest_memory.h"

namespace caisson::jit {

// Everything besides address and bytes that a translation depends on; see mode_word() in translate/.
using ModeWord = uint32_t;

struct BlockKey {
  Gpa gpa = 0;       // of the first byte
  uint64_t rip = 0;  // linear address of the first byte; user code, which works at any address: offset in its page
  ModeWord mode = 0;
  bool operator==(const BlockKey&) const = default;
};

// Host code offset at which a guest instruction's code starts, for faults and slow paths.
struct HostPoint {
  uint16_t host_offset;
  uint16_t guest_offset : 15;
  uint16_t flags_in_memory : 1;  // guest status flags stand in Cpu::flags_ax there
};

// There are a hundred thousand of these: what is kept for each is counted in bytes.
struct Block {
  BlockKey key;
  // Executable address of its first byte, 16-byte aligned: where look-ups enter, with T0 = linear address and the
  // guest's status flags in memory.
  uint8_t* start = nullptr;
  // Its last instruction ends on another page: that page, and how many bytes of it.
  Gpa next_page = 0;
  uint32_t first_point = 0;  // in CodeCache::points_
  uint32_t incoming = 0;     // jumps that lead here: the first one's place in CodeCache::links_, or 0
  uint16_t points = 0;
  uint16_t host_size = 0;
  uint16_t cold_offset = 0;   // from start: what is jumped to seldom
  uint16_t stale_offset = 0;  // from start: code that leaves to the dispatcher
  uint16_t guest_size = 0;    // bytes of the guest's code it stands for (and looked at), from the first
  // Other pieces of guest code on the same page that were looked at (flags on the way out): [offset in page, size).
  uint16_t peek_offset[2] = {0, 0};
  uint8_t peek_size[2] = {0, 0};
  uint8_t next_size = 0;
  uint8_t instructions = 0;
  uint8_t entry_offset = 0;  // entry - start
  bool alive = true;
  bool suspended = false;  // (atomic) entries are patched though the block is good: its mapping must be looked at again
  bool global = false;     // its page was mapped by a global entry
  bool start_to_entry = false;  // the start only brings the flags back and goes on to the entry

  // Where chained jumps enter, with the status flags in EFLAGS; 8-byte aligned.
  [[nodiscard]] uint8_t* entry() const { return start + entry_offset; }
};
static_assert(sizeof(Block) <= 80);

class CodeCache {
 public:
  [[nodiscard]] static Result<std::unique_ptr<CodeCache>> create(GuestMemory& memory, size_t size);
  ~CodeCache();

  [[nodiscard]] std::mutex& lock() { return lock_; }

  // Any thread, without the lock: the block with this key, or null. Others may kill it at any moment: then its entry
  // leads to its stale exit.
  [[nodiscard]] Block* find(const BlockKey& key) const { return index_.find(key); }
  [[nodiscard]] static bool is_suspended(const Block& block) {
    return __atomic_load_n(&block.suspended, __ATOMIC_ACQUIRE);
  }

  // --- with the lock held --------------------------------------------------------------------------------------------
  // Room for one more block of at most `size` bytes?
  [[nodiscard]] bool has_room(size_t size) const { return used_ + size <= limit_ && !index_.full(); }
  [[nodiscard]] uint8_t* write_position() { return writable_ + used_; }
  [[nodiscard]] uint8_t* run_position() { return executable_ + used_; }
  // Takes over the `block` whose code was written at write_position().
  Block* commit(const Block& block, const std::vector<HostPoint>& points);
  void advance(size_t bytes);  // for code that is no block (stubs)
  // Everything from the first block on is forgotten. No vCPU may be in guest code. Most code that a guest ever runs it
  // runs once: so the cache does not grow to its whole size unless much of what was dropped had to be made again.
  void drop_all();
  // What was emitted so far (stubs) survives drop_all(). `stale`: the stub that a patched start leads to.
  void set_base(const uint8_t* stale) {
    base_used_ = used_;
    stale_ = stale;
  }

  void kill(Block& block);
  void suspend(Block& block);
  void resume(Block& block);
  // Kills the blocks that come from these guest bytes. True if any died. A page without blocks loses its mark, unless
  // one is expected there.
  bool written(Gpa gpa, uint64_t length);
  // A block of this page is being translated: until expect_no_more(), stores by others leave the page's mark. (Where
  // they took it away again and again, the translation would not end while they go on.)
  void expect(Gpa page) { expected_.push_back(memory_.page_index(page)); }
  void expect_no_more(Gpa page);
  // Points the jump at `slot` (executable address of its rel32, which lies in one aligned word of 8 bytes) to `target`,
  // as long as that lives. May allocate.
  void chain(const uint8_t* slot, Block& target);

  // --- targets of jumps across pages, which stay good only while the target's mapping does
  // ----------------------------
  void note_cross_page_target(Block& block);
  template <class Check>  // bool check(uint64_t linear_page, Gpa gpa_page): still mapped so
  void recheck_cross_page_targets(Check check);
  template <class Check>
  void recheck_cross_page_target(uint64_t linear_page, Check check);

  // The block whose code contains the executable address, or null.
  [[nodiscard]] Block* block_at(const uint8_t* address);
  // The guest instruction there.
  [[nodiscard]] HostPoint point_at(const Block& block, const uint8_t* address) const;

  [[nodiscard]] bool contains(const uint8_t* address) const {
    return address >= executable_ && address < executable_ + size_;
  }

  // Code that belongs to no block.
  [[nodiscard]] bool is_stub(const uint8_t* address) const { return address < executable_ + base_used_; }

  struct Statistics {
    uint64_t blocks = 0, host_bytes = 0, guest_bytes = 0, killed = 0, drops = 0, suspended = 0;
  };
  [[nodiscard]] const Statistics& statistics() const { return statistics_; }
  // What it holds now: bytes of host code (of at most `size` as created), blocks, dead ones too.
  [[nodiscard]] size_t bytes_used() const { return used_; }
  [[nodiscard]] size_t blocks_held() const { return blocks_.size(); }
  [[nodiscard]] uint64_t generation() const { return generation_; }

 private:
  struct CodePageBlocks {
    uint32_t granules = 0;  // 128-byte pieces of the page that translations depend on
    std::vector<Block*> blocks;
  };

  // A jump chained to a block: offsets in the cache of its rel32 and of where it led before; the next one's place.
  struct Link {
    uint32_t slot, before, next;
  };
  // A HostPoint, as distances from the one before. Where a byte is too few for the host's, one that is no point stands
  // before it with 255.
  struct PackedPoint {
    uint16_t host : 8, guest : 4, flags_in_memory : 1, point : 1;
  };
  struct Entries {
    uint64_t start, entry;  // what stood there
  };

  void depends_on(size_t page_index, Block& block);
  void unlink(Block& block);
  void close_entries(const Block& block);
  void patch_jump(const uint8_t* slot, const uint8_t* target);
  void put_jump(const uint8_t* at, const uint8_t* target);
  void put(const uint8_t* at, uint64_t bytes);
  explicit CodeCache(GuestMemory& memory) : memory_(memory) {}
  [[nodiscard]] uint8_t* writable_of(const uint8_t* executable) { return writable_ + (executable - executable_); }

  GuestMemory& memory_;
  std::mutex lock_;
  Fd memfd_;
  uint8_t* writable_ = nullptr;
  uint8_t* executable_ = nullptr;
  size_t size_ = 0;
  size_t limit_ = 0;  // what may be used now, at most size_: see drop_all()
  size_t used_ = 0;
  size_t base_used_ = 0;
  const uint8_t* stale_ = nullptr;
  uint64_t generation_ = 0;
  std::vector<uint64_t> dropped_;  // hashes of the blocks that the last drop_all() dropped: a bit for each
  size_t made_again_ = 0;          // blocks since then that are among them
  std::deque<Block> blocks_;       // by address; they stay where they are
  std::vector<Link> links_;        // the first is none
  uint32_t free_link_ = 0;
  std::unordered_map<const Block*, Entries> suspended_;
  std::deque<PackedPoint> points_;
  BlockIndex<Block, BlockKey> index_;
  std::unordered_map<size_t, CodePageBlocks> by_page_;            // by GuestMemory::page_index
  std::unordered_map<uint64_t, std::vector<Block*>> cross_page_;  // by linear page
  std::vector<size_t> expected_;                                  // by GuestMemory::page_index, at most two of each CPU
  void lose_mark(Gpa gpa);
  Statistics statistics_;
};

template <class Check>
void CodeCache::recheck_cross_page_targets(Check check) {
  for (auto& [page, blocks] : cross_page_) {
    for (Block* block : blocks) {
      if (block->alive && !block->suspended && !check(page, block->key.gpa & ~(caisson::page_size - 1)))
        suspend(*block);
    }
  }
}

template <class Check>
void CodeCache::recheck_cross_page_target(uint64_t linear_page, Check check) {
  const auto found = cross_page_.find(linear_page);
  if (found == cross_page_.end()) return;
  for (Block* block : found->second) {
    if (block->alive && !block->suspended && !check(linear_page, block->key.gpa & ~(caisson::page_size - 1)))
      suspend(*block);
  }
}

}  // namespace caisson::jit
