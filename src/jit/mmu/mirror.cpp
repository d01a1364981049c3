#include "jit/mmu/mirror.h"

#include <algorithm>
#include <atomic>

#include <asm/hwcap2.h>
#include <asm/prctl.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "jit/mmu/code_pages.h"
#include "jit/mmu/page_walk.h"
#include "jit/mmu/used_page.h"
#include "jit/profile.h"

namespace caisson::jit {
namespace {

using mmu::address_mask;
using mmu::Filled;

constexpr uint64_t region_size = uint64_t{1} << Mirror::region_shift;
// On both sides of a region: translated code finds the region by base and index registers, and adds displacements of up
// to 2 GiB.
constexpr uint64_t guard = uint64_t{4} << 30;
constexpr size_t max_spaces = 6, max_regions = 6;
// Pages in all mirrors of this process: each may take two of the host's mappings, of which it allows 65530 unless
// somebody changed that.
constexpr size_t max_mappings = 25000;
constexpr unsigned max_strays = 64;
// How many host faults may be in vain before a mirror is given up, and how many more for each timer interrupt.
constexpr unsigned first_credit = 256, credit_per_interrupt = 32;
constexpr unsigned most_patience = 1000;

std::atomic<size_t> mappings{0};

// Inaccessible address space, where something may be already: `flags` MAP_FIXED, or where nothing may:
// MAP_FIXED_NOREPLACE, or anywhere: 0.
uint8_t* reserve(uint8_t* at, size_t size, int flags) {
  void* got = mmap(at, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
  return got == MAP_FAILED ? nullptr : static_cast<uint8_t*>(got);
}

void set_gs_base(uint64_t base) {
  static const bool direct = (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) != 0;
  if (direct) {
    asm volatile("wrgsbase %0" ::"r"(base));
  } else {
    CAISSON_CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, base) == 0);
  }
}

}  // namespace

bool Mirror::possible() {
#if defined(__SANITIZE_THREAD__)
  return false;  // its shadow leaves no address space
#else
  static const bool bmi2 = __builtin_cpu_supports("bmi2");
  return bmi2;
#endif
}

Mirror::Mirror(Cpu& cpu, unsigned patience) : cpu_(cpu), patience_(patience), candidates_(patience) {}

Mirror::~Mirror() {
  while (!spaces_.empty()) end(*spaces_.back());
  if (nowhere_ != nullptr) munmap(nowhere_ - guard, region_size + 2 * guard);
}

void Mirror::interrupted() {
  if (patience_ == 0) return;
  if (active_ != nullptr) {
    active_->credit = std::min(active_->credit + credit_per_interrupt, first_credit);
    return;
  }
  Candidates::Candidate& here = candidate();
  if (++here.seen < here.needed) return;
  here.seen = 0;
  begin();
}

uint8_t* Mirror::host_of(const Space& space, uint64_t linear) {
  const auto region = std::ranges::find(space.regions, linear >> region_shift, &Region::number);
  return reinterpret_cast<uint8_t*>(linear + region->addend);
}

void Mirror::give_back(std::span<const Region> some) {
  for (const Region& region : some) {
    const uint64_t at = (uint64_t{region.number} << region_shift) + region.addend;
    munmap(reinterpret_cast<uint8_t*>(at) - guard, region_size + 2 * guard);
  }
}

// All regions of a half are moved by the same distance, a multiple of their size, to where the host has room for them.
bool Mirror::find_room(std::span<Region> half) {
  constexpr int last = regions / 2 - 1;
  const auto reserve_all = [&](int distance) {
    for (size_t i = 0; i < half.size(); ++i) {
      Region& region = half[i];
      region.addend = static_cast<uint64_t>(int64_t{distance} << region_shift);
      uint8_t* at = reinterpret_cast<uint8_t*>((uint64_t{region.number} << region_shift) + region.addend);
      // Between a region and one that follows there is no gap to guard.
      const bool follows = i > 0 && half[i - 1].number + 1 == region.number;
      uint8_t* from = follows ? at + guard : at - guard;
      const auto size = static_cast<size_t>(at + region_size + guard - from);
      uint8_t* got = reserve(from, size, MAP_FIXED_NOREPLACE);
      if (got == from) continue;
      if (got != nullptr) munmap(got, size);
      give_back(half.first(i));
      return false;
    }
    return true;
  };
  for (int distance = 1; distance <= last; ++distance) {
    for (const int way : {-distance, distance}) {
      // The host's first and last regions do not leave room for the guards.
      if (static_cast<int>(half.front().number) + way < 1 || static_cast<int>(half.back().number) + way >= last)
        continue;
      if (reserve_all(way)) return true;
    }
  }
  return false;
}

void Mirror::begin() {
  if (!cpu_.paging || !cpu_.long_mode) return;
  const std::lock_guard hold(lock_);
  if (nowhere_ == nullptr) {
    uint8_t* got = reserve(nullptr, region_size + 2 * guard, 0);
    if (got == nullptr) return;
    nowhere_ = got + guard;
  }
  // The regions that are in use now: two entries of the top-level table each (SDM vol. 3, 4.5.4).
  auto space = std::make_unique<Space>();
  space->credit = first_credit;
  space->pcid = static_cast<unsigned>(cpu_.cr4 & x86::cr4::pcide ? cpu_.cr3 & 0xfff : 0);
  std::array<uint64_t, 256> top{};
  if (!cpu_.memory->read_object(cpu_.cr3 & address_mask, top)) return;
  for (unsigned region = 0; region < top.size() / 2; ++region) {
    if (((top[2 * region] | top[2 * region + 1]) & 1) != 0) space->regions.push_back({.number = region});
  }
  if (space->regions.empty() || space->regions.size() > max_regions) return;
  if (spaces_.size() == max_spaces) end(*spaces_.front());
  const std::span<Region> all = space->regions;
  const auto lower = static_cast<size_t>(
      std::ranges::count_if(all, [](const Region& region) { return region.number < first_upper_region; }));
  if (lower != 0 && !find_room(all.first(lower))) return;
  if (lower != all.size() && !find_room(all.subspan(lower))) {
    give_back(all.first(lower));
    return;
  }
  if (cpu_.profile != nullptr) cpu_.profile->count(Profile::mirrors);
  spaces_.push_back(std::move(space));
  activate(spaces_.back().get());
}

// Every address leads into one of the regions or, where it is in none, to `nowhere_`. (One whose bits 63 to 48 are not
// zero is not canonical when the addend was added, whatever it was before: the sum of the other bits has 47 bits.)
void Mirror::activate(Space* space) {
  active_ = space;
  cpu_.mirrored = space != nullptr;
  if (space == nullptr) return;
  strays_ = 0;
  cpu_.mirror_valid.fill(false);
  // Where a half has no region: one that no address of the lower half of all addresses lies in, and that leads nowhere.
  cpu_.mirror_region.fill(regions - 1);
  cpu_.mirror_addend.fill(to_nowhere(regions - 1));
  for (unsigned region = 0; region < regions; ++region) cpu_.mirror_addends[region] = to_nowhere(region);
  cpu_.mirror_stack_addends = cpu_.mirror_addends;
  stack_region_ = regions;
  fs_ = 1;
  // Heaps are where programs are, but for those that stand at the bottom: their libraries use more memory.
  const unsigned first = space->regions.front().number, last = space->regions.back().number;
  cpu_.mirror_gs_half = last >= first_upper_region && (first == 0 || first >= first_upper_region) ? 1 : 0;
  for (const Region& region : space->regions) {
    cpu_.mirror_valid[region.number] = true;
    cpu_.mirror_addends[region.number] = region.addend;
    // Programs stand at the bottom of the lower half, or in one region of it; stack and libraries at the top of the
    // upper.
    const unsigned half = region.number >= first_upper_region ? 1 : 0;
    if (half == 0 && cpu_.mirror_region[0] != regions - 1) continue;
    cpu_.mirror_region[half] = region.number;
    cpu_.mirror_addend[half] = region.addend;
  }
}

uint64_t Mirror::before_entry() {
  const uint64_t region = cpu_.gpr[x86::Rsp] >> region_shift;
  if (region != stack_region_) {
    if (stack_region_ != regions) cpu_.mirror_stack_addends[stack_region_] = to_nowhere(stack_region_);
    stack_region_ = region;
    cpu_.mirror_stack_addends[region] = cpu_.mirror_addends[region];
    cpu_.mirror_stack_back = 0 - cpu_.mirror_addends[region];
  }
  const uint64_t fs = cpu_.segments[x86::Fs].base;
  if (fs != fs_) {
    fs_ = fs;
    const bool valid = fs >> region_shift < regions && cpu_.mirror_valid[fs >> region_shift];
    cpu_.mirror_fs =
        valid ? fs + cpu_.mirror_addends[fs >> region_shift] : reinterpret_cast<uint64_t>(nowhere_) + region_size / 2;
  }
  if (const uint64_t gs = cpu_.mirror_addend[cpu_.mirror_gs_half]; gs != gs_) {
    gs_ = gs;
    set_gs_base(gs);
  }
  return cpu_.mirror_addends[region];
}

// An addend that leads from this region to where nothing is.
uint64_t Mirror::to_nowhere(size_t region) const {
  return reinterpret_cast<uint64_t>(nowhere_) - (uint64_t{region} << region_shift);
}

void Mirror::end(Space& space) {
  if (active_ == &space) activate(nullptr);
  give_back(space.regions);
  mappings -= space.pages.size();
  std::erase_if(spaces_, [&](const auto& one) { return one.get() == &space; });
}

void Mirror::address_space_changed(unsigned pcid, bool keep) {
  if (!keep) drop_pcid(pcid);
  if (spaces_.empty()) return;
  const std::lock_guard hold(lock_);
  const auto found =
      std::find_if(spaces_.begin(), spaces_.end(), [&](const auto& space) { return space->pcid == pcid; });
  if (found == spaces_.end()) {
    activate(nullptr);
    return;
  }
  std::rotate(found, found + 1, spaces_.end());
  activate(spaces_.back().get());
}

void Mirror::drop_pcid(unsigned pcid) {
  if ((cpu_.cr4 & x86::cr4::pcide) == 0 || (cpu_.cr3 & 0xfff) == pcid) candidates_.forget(cpu_.cr3);
  if (spaces_.empty()) return;
  const std::lock_guard hold(lock_);
  for (size_t i = spaces_.size(); i-- > 0;) {
    if (spaces_[i]->pcid == pcid) end(*spaces_[i]);
  }
}

void Mirror::drop_all() {
  candidates_.forget(cpu_.cr3);
  if (spaces_.empty()) return;
  const std::lock_guard hold(lock_);
  while (!spaces_.empty()) end(*spaces_.back());
}

void Mirror::drop_page(uint64_t linear) {
  if (active_ == nullptr) return;
  const std::lock_guard hold(lock_);
  unmap(*active_, linear & ~(page_size - 1));
}

void Mirror::drop_large_page(uint64_t linear, unsigned shift) {
  if (active_ == nullptr) return;
  const std::lock_guard hold(lock_);
  std::vector<uint64_t> there;
  for (const auto& [page, what] : active_->pages) {
    if ((page ^ linear) >> shift == 0) there.push_back(page);
  }
  for (const uint64_t page : there) unmap(*active_, page);
}

void Mirror::forget_writable(Space& space, uint64_t linear, Gpa gpa) {
  const auto [first, last] = space.linear_pages.equal_range(gpa);
  const auto found = std::find_if(first, last, [&](const auto& entry) { return entry.second == linear; });
  if (found != last) space.linear_pages.erase(found);
}

void Mirror::unmap(Space& space, uint64_t linear) {
  const auto found = space.pages.find(linear);
  if (found == space.pages.end()) return;
  // (What cannot be taken away would stay in sight of the guest.)
  CAISSON_CHECK(reserve(host_of(space, linear), page_size, MAP_FIXED) != nullptr);
  if (found->second.writable) forget_writable(space, linear, found->second.gpa);
  space.pages.erase(found);
  --mappings;
}

// How many pages from this one on, itself included, lie side by side in the guest's memory too, and were used so
// before.
size_t Mirror::neighbours(const Space& space, uint64_t linear, Gpa gpa, bool writable) const {
  constexpr size_t most = 16;
  size_t count = 1;
  for (; count < most; ++count) {
    const uint64_t at = linear + count * page_size;
    if ((at ^ linear) >> region_shift != 0 || space.pages.contains(at)) break;
    const mmu::UsedPage seen = mmu::used_page(cpu_, at);
    if (!seen.used || seen.writable != writable || seen.gpa != gpa + count * page_size) break;
    if (!cpu_.memory->contains(seen.gpa, page_size)) break;
    if (writable && !claim_for_writing(cpu_, seen.gpa)) break;
  }
  return count;
}

bool Mirror::map(Space& space, uint64_t linear, Gpa gpa, size_t count, bool writable) {
  void* got = mmap(host_of(space, linear), count * page_size, PROT_READ | (writable ? PROT_WRITE : 0),
                   MAP_SHARED | MAP_FIXED | MAP_POPULATE, cpu_.memory->memfd(),
                   static_cast<off_t>(cpu_.memory->page_index(gpa) * page_size));
  if (got == MAP_FAILED) {
    // What was there may be gone, and nothing else may come there.
    CAISSON_CHECK(reserve(host_of(space, linear), count * page_size, MAP_FIXED) != nullptr);
    for (size_t i = 0; i < count; ++i) unmap(space, linear + i * page_size);
    return false;
  }
  for (size_t i = 0; i < count; ++i) {
    const uint64_t at = linear + i * page_size;
    const Gpa page = gpa + i * page_size;
    const auto [place, added] = space.pages.try_emplace(at);
    if (!added && place->second.writable) forget_writable(space, at, place->second.gpa);
    mappings += added;
    if (added && cpu_.profile != nullptr) cpu_.profile->count(Profile::mirror_pages);
    place->second = {.gpa = page, .writable = writable};
    if (writable) space.linear_pages.emplace(page, at);
  }
  return true;
}

bool Mirror::fault(uint64_t host_address, bool write) {
  if (active_ == nullptr) return false;
  const std::lock_guard hold(lock_);
  if (cpu_.profile != nullptr) cpu_.profile->count(Profile::mirror_faults);
  Space& space = *active_;
  const auto region = std::ranges::find_if(
      space.regions, [&](const Region& one) { return (host_address - one.addend) >> region_shift == one.number; });
  if (region == space.regions.end()) {
    // The interpreter does it. Where it happens often the guest has begun to use another region.
    if (host_address - reinterpret_cast<uint64_t>(nowhere_) < region_size && ++strays_ == max_strays) end(space);
    return false;
  }
  const uint64_t linear = (host_address - region->addend) & ~(page_size - 1);
  const auto known = space.pages.find(linear);
  if (known != space.pages.end() && (!write || known->second.writable)) return false;
  const Filled filled = mmu::fill(cpu_, linear, write ? Access::Write : Access::Read, TlbMode::User);
  cpu_.fault.raised = false;  // the interpreter finds it again
  // (ROM is not in the file that mirrors map.)
  const bool possible = filled.ok && cpu_.memory->contains(filled.gpa, 1);
  if (!possible || !filled.ram || (write && !filled.direct)) {
    // A host fault for nothing. A process that grows, or works on a device, is served better without.
    if (--space.credit == 0 && patience_ != 0) {
      Candidates::Candidate& here = candidate();
      here.needed = std::min(4 * here.needed, most_patience);
      here.seen = 0;
      end(space);
    }
    return false;
  }
  if (mappings > max_mappings) {
    // Begins anew rather than finds out what is used least.
    while (!space.pages.empty()) unmap(space, space.pages.begin()->first);
  }
  return map(space, linear, filled.gpa, neighbours(space, linear, filled.gpa, filled.direct), filled.direct);
}

void Mirror::revoke(Gpa page) {
  const std::lock_guard hold(lock_);
  for (const auto& space : spaces_) {
    const auto [first, last] = space->linear_pages.equal_range(page);
    for (auto at = first; at != last; ++at) {
      CAISSON_CHECK(mprotect(host_of(*space, at->second), page_size, PROT_READ) == 0);
      space->pages[at->second].writable = false;
    }
    space->linear_pages.erase(first, last);
  }
}

}  // namespace caisson::jit
