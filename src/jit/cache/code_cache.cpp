#include "jit/cache/code_cache.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <sys/mman.h>

#include "base/address_space.h"
#include "base/check.h"

namespace caisson::jit {
namespace {

constexpr unsigned granule_shift = 7;

// Bytes that the cache uses at first.
constexpr size_t first_limit = size_t{20} << 20;
// It gets twice as many where it filled with one block in this many that it had held before.
constexpr size_t worth_keeping = 4;
constexpr size_t dropped_bits = size_t{1} << 20;

// Calls visit(offset, size) for the pieces of the guest page that the block was made from.
template <class Visit>
void pieces_on(const Block& block, bool second_page, Visit visit) {
  if (second_page) {
    visit(uint64_t{0}, uint64_t{block.next_size});
    return;
  }
  visit(block.key.gpa % page_size, uint64_t{block.guest_size} - block.next_size);
  for (unsigned i = 0; i < 2; ++i) visit(uint64_t{block.peek_offset[i]}, uint64_t{block.peek_size[i]});
}

uint32_t granules_of(uint64_t offset, uint64_t size) {
  if (size == 0) return 0;
  const unsigned first = static_cast<unsigned>(offset >> granule_shift);
  const unsigned last = static_cast<unsigned>(std::min<uint64_t>(offset + size - 1, page_size - 1) >> granule_shift);
  return static_cast<uint32_t>((uint64_t{2} << last) - (uint64_t{1} << first));
}

}  // namespace

Result<std::unique_ptr<CodeCache>> CodeCache::create(GuestMemory& memory, size_t size) {
  std::unique_ptr<CodeCache> cache{new CodeCache(memory)};
  cache->memfd_ = Fd{memfd_create("caisson-code", MFD_CLOEXEC)};
  if (!cache->memfd_.valid() || ftruncate(cache->memfd_.get(), static_cast<off_t>(size)) != 0) {
    return fail_errno(errno, "create the code cache");
  }
  cache->size_ = size;
  cache->links_.resize(1);
  cache->limit_ = std::min(size, first_limit);
  const auto map = [&](uint8_t*& at, int protection) {
    at = reserve_address_space(size);
    return at != nullptr && mmap(at, size, protection, MAP_SHARED | MAP_FIXED, cache->memfd_.get(), 0) != MAP_FAILED;
  };
  if (!map(cache->writable_, PROT_READ | PROT_WRITE)) return fail_errno(errno, "map the code cache");
  if (!map(cache->executable_, PROT_READ | PROT_EXEC)) {
    return fail_errno(errno, "map the code cache executable; the host's policy may forbid executable shared memory");
  }
  // Advice only: translated code is large, and the host's processor has few entries for the pages of code. The first
  // huge page is left out: short-lived machines need no more.
  if (size > huge_page_size) {
    for (uint8_t* at : {cache->writable_, cache->executable_}) {
      madvise(at + huge_page_size, size - huge_page_size, MADV_HUGEPAGE);
    }
  }
  return cache;
}

CodeCache::~CodeCache() {
  if (writable_ != nullptr) munmap(writable_, size_);
  if (executable_ != nullptr) munmap(executable_, size_);
}

Block* CodeCache::commit(const Block& block, const std::vector<HostPoint>& points) {
  Block* kept = &blocks_.emplace_back(block);
  kept->start = run_position();
  kept->first_point = static_cast<uint32_t>(points_.size());
  HostPoint before{};
  for (const HostPoint& point : points) {
    unsigned host = point.host_offset - before.host_offset;
    for (; host > 0xff; host -= 0xff) points_.push_back({.host = 0xff, .guest = 0, .flags_in_memory = 0, .point = 0});
    points_.push_back({.host = static_cast<uint8_t>(host),
                       .guest = static_cast<uint8_t>((point.guest_offset - before.guest_offset) & 15),
                       .flags_in_memory = point.flags_in_memory,
                       .point = 1});
    before = point;
  }
  kept->points = static_cast<uint16_t>(points_.size() - kept->first_point);
  depends_on(memory_.page_index(kept->key.gpa), *kept);
  if (kept->next_size != 0) depends_on(memory_.page_index(kept->next_page), *kept);
  if (!dropped_.empty()) {
    const size_t bit = index_.hash(kept->key) % dropped_bits;
    made_again_ += dropped_[bit / 64] >> bit % 64 & 1;
  }
  ++statistics_.blocks;
  statistics_.host_bytes += kept->host_size;
  statistics_.guest_bytes += kept->guest_size;
  advance(kept->host_size);
  index_.insert(kept);  // from now on others run it
  return kept;
}

void CodeCache::depends_on(size_t page_index, Block& block) {
  CodePageBlocks& page = by_page_[page_index];
  pieces_on(block, memory_.page_index(block.key.gpa) != page_index,
            [&](uint64_t offset, uint64_t size) { page.granules |= granules_of(offset, size); });
  page.blocks.push_back(&block);
}

void CodeCache::advance(size_t bytes) {
  used_ += (bytes + 15) & ~size_t{15};
  CAISSON_CHECK(used_ <= size_);
}

void CodeCache::drop_all() {
  for (const auto& [index, page] : by_page_) {
    memory_.page_flags(memory_.page_address(index)).fetch_and(~GuestMemory::code_flag, std::memory_order_seq_cst);
  }
  by_page_.clear();
  index_.clear();
  cross_page_.clear();
  if (made_again_ > blocks_.size() / worth_keeping) limit_ = std::min(2 * limit_, size_);
  made_again_ = 0;
  dropped_.assign(dropped_bits / 64, 0);
  for (const Block& block : blocks_) {
    const size_t bit = index_.hash(block.key) % dropped_bits;
    if (block.alive) dropped_[bit / 64] |= uint64_t{1} << bit % 64;
  }
  suspended_.clear();
  blocks_.clear();
  points_.clear();
  links_.resize(1);
  free_link_ = 0;
  used_ = base_used_;
  ++generation_;
  ++statistics_.drops;
}

void CodeCache::kill(Block& block) {
  if (!block.alive) return;
  if (block.suspended) {
    suspended_.erase(&block);
  } else {
    close_entries(block);
  }
  __atomic_store_n(&block.suspended, true, __ATOMIC_RELEASE);
  unlink(block);
  block.alive = false;
  index_.erase(&block);
  ++statistics_.killed;
}

void CodeCache::suspend(Block& block) {
  if (block.suspended) return;
  __atomic_store_n(&block.suspended, true, __ATOMIC_RELEASE);
  ++statistics_.suspended;
  unlink(block);
  Entries& entries = suspended_[&block];
  std::memcpy(&entries.start, block.start, sizeof entries.start);
  std::memcpy(&entries.entry, block.entry(), sizeof entries.entry);
  close_entries(block);
}

// Jumps that were chained to the block lead where they led before.
void CodeCache::unlink(Block& block) {
  for (uint32_t at = block.incoming; at != 0;) {
    Link& link = links_[at];
    patch_jump(executable_ + link.slot, executable_ + link.before);
    const uint32_t next = link.next;
    link.next = free_link_;
    free_link_ = at;
    at = next;
  }
  block.incoming = 0;
}

// Both entries lead out to the dispatcher, and say each where the guest's flags are.
void CodeCache::close_entries(const Block& block) {
  if (!block.start_to_entry) put_jump(block.start, stale_);
  put_jump(block.entry(), block.start + block.stale_offset);
}

// jmp rel32 in place of the first of 8 bytes, in one aligned store.
void CodeCache::put_jump(const uint8_t* at, const uint8_t* target) {
  uint64_t bytes;
  std::memcpy(&bytes, at, sizeof bytes);
  auto* raw = reinterpret_cast<uint8_t*>(&bytes);
  const int32_t distance = static_cast<int32_t>(target - (at + 5));
  raw[0] = 0xe9;
  std::memcpy(raw + 1, &distance, 4);
  put(at, bytes);
}

// (Across the end of a cache line it would not be one store, and the host's CPU would stop all others for it.)
void CodeCache::put(const uint8_t* at, uint64_t bytes) {
  CAISSON_CHECK(reinterpret_cast<uintptr_t>(at) % sizeof bytes == 0);
  __atomic_store_n(reinterpret_cast<uint64_t*>(writable_of(at)), bytes, __ATOMIC_SEQ_CST);
}

void CodeCache::resume(Block& block) {
  CAISSON_CHECK(block.alive);
  const auto entries = suspended_.find(&block);
  CAISSON_CHECK(entries != suspended_.end());
  put(block.entry(), entries->second.entry);
  put(block.start, entries->second.start);
  suspended_.erase(entries);
  __atomic_store_n(&block.suspended, false, __ATOMIC_RELEASE);
}

void CodeCache::expect_no_more(Gpa page) {
  const auto found = std::ranges::find(expected_, memory_.page_index(page));
  if (found == expected_.end()) return;
  *found = expected_.back();
  expected_.pop_back();
}

void CodeCache::lose_mark(Gpa gpa) {
  if (std::ranges::find(expected_, memory_.page_index(gpa)) != expected_.end()) return;
  memory_.page_flags(gpa).fetch_and(~GuestMemory::code_flag, std::memory_order_seq_cst);
}

bool CodeCache::written(Gpa gpa, uint64_t length) {
  const auto found = by_page_.find(memory_.page_index(gpa));
  if (found == by_page_.end()) {
    lose_mark(gpa);  // made for a translation that did not come to be
    return false;
  }
  const uint64_t offset = gpa % page_size;
  CodePageBlocks& page = found->second;
  if ((page.granules & granules_of(offset, length)) == 0) return false;
  bool any = false;
  page.granules = 0;
  std::erase_if(page.blocks, [&](Block* block) {
    if (!block->alive) return true;
    const bool second_page = memory_.page_index(block->key.gpa) != found->first;
    bool hit = false;
    uint32_t granules = 0;
    pieces_on(*block, second_page, [&](uint64_t start, uint64_t size) {
      hit |= size != 0 && offset < start + size && start < offset + length;
      granules |= granules_of(start, size);
    });
    if (hit) {
      kill(*block);
      any = true;
      return true;
    }
    page.granules |= granules;
    return false;
  });
  if (page.blocks.empty()) {
    lose_mark(gpa);
    by_page_.erase(found);
  }
  return any;
}

void CodeCache::chain(const uint8_t* slot, Block& target) {
  int32_t distance;
  std::memcpy(&distance, slot, 4);
  if (slot + 4 + distance == target.entry()) return;
  uint32_t place = free_link_;
  if (place != 0) {
    free_link_ = links_[place].next;
  } else {
    place = static_cast<uint32_t>(links_.size());
    links_.emplace_back();
  }
  links_[place] = {.slot = static_cast<uint32_t>(slot - executable_),
                   .before = static_cast<uint32_t>(slot + 4 + distance - executable_),
                   .next = target.incoming};
  target.incoming = place;
  patch_jump(slot, target.entry());
}

void CodeCache::patch_jump(const uint8_t* slot, const uint8_t* target) {
  const int32_t distance = static_cast<int32_t>(target - (slot + 4));
  const size_t inside = reinterpret_cast<uintptr_t>(slot) % sizeof(uint64_t);
  CAISSON_CHECK(inside <= sizeof(uint64_t) - sizeof distance);
  uint64_t bytes;
  std::memcpy(&bytes, slot - inside, sizeof bytes);
  std::memcpy(reinterpret_cast<uint8_t*>(&bytes) + inside, &distance, sizeof distance);
  put(slot - inside, bytes);
}

void CodeCache::note_cross_page_target(Block& block) {
  auto& blocks = cross_page_[block.key.rip & ~(caisson::page_size - 1)];
  if (std::find(blocks.begin(), blocks.end(), &block) == blocks.end()) blocks.push_back(&block);
}

Block* CodeCache::block_at(const uint8_t* address) {
  const auto after = std::upper_bound(blocks_.begin(), blocks_.end(), address,
                                      [](const uint8_t* at, const Block& block) { return at < block.start; });
  if (after == blocks_.begin()) return nullptr;
  Block& block = *std::prev(after);
  return address < block.start + block.host_size ? &block : nullptr;
}

HostPoint CodeCache::point_at(const Block& block, const uint8_t* address) const {
  const auto offset = static_cast<size_t>(address - block.start);
  HostPoint point{};
  HostPoint found{};
  bool any = false;
  for (size_t i = 0; i < block.points; ++i) {
    const PackedPoint packed = points_[block.first_point + i];
    point.host_offset = static_cast<uint16_t>(point.host_offset + packed.host);
    if (!packed.point) continue;
    point.guest_offset = static_cast<uint16_t>((point.guest_offset + packed.guest) & 0x7fff);
    point.flags_in_memory = packed.flags_in_memory;
    if (point.host_offset > offset) break;
    found = point;
    any = true;
  }
  CAISSON_CHECK(any);
  return found;
}

}  // namespace caisson::jit
