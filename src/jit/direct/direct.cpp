#include "jit/direct/direct.h"

#include <algorithm>
#include <utility>

#include <sys/syscall.h>
#include <unistd.h>

#include "jit/mmu/code_pages.h"
#include "jit/mmu/mmu.h"
#include "jit/mmu/page_walk.h"
#include "jit/mmu/used_page.h"
#include "jit/profile.h"

namespace caisson::jit {
namespace {

constexpr size_t max_spaces = 6, max_idle = 2;
constexpr unsigned most_patience = 1000;

}  // namespace

Direct::Direct(Cpu& cpu, unsigned patience) : cpu_(cpu), patience_(patience), candidates_(patience) {}

Direct::~Direct() = default;

void Direct::enter_thread() {
  const int thread = static_cast<int>(syscall(SYS_gettid));
  if (thread == thread_) return;
  // Only the thread that made them can go on with the processes.
  thread_ = thread;
  while (!spaces_.empty()) end(*spaces_.back());
  const std::lock_guard hold(lock_);
  idle_.clear();
}

bool Direct::wanted() {
  if (active_ == nullptr) return patience_ == 0 && fits() && begin();
  return !waits() && fits() && !at_sensitive_code(*active_);
}

bool Direct::interrupted() {
  if (active_ != nullptr) return !waits();
  if (patience_ == 0 || waits() || !fits()) return false;
  Candidates::Candidate& here = candidate();
  if (++here.seen < here.needed) return false;
  here.seen = 0;
  return begin();
}

bool Direct::begin() {
  if (!cpu_.paging || !cpu_.long_mode || !HostProcess::possible()) return false;
  auto space = std::make_unique<Space>();
  space->pcid = static_cast<unsigned>(cpu_.cr4 & x86::cr4::pcide ? cpu_.cr3 & 0xfff : 0);
  space->table = cpu_.cr3 & mmu::address_mask;
  if (spaces_.size() == max_spaces) end(*spaces_.front());
  if (!idle_.empty()) {
    space->process = std::move(idle_.back());
    idle_.pop_back();
  } else {
    space->process = HostProcess::create(cpu_.memory->memfd());
  }
  if (space->process == nullptr) {
    candidate().needed = most_patience;
    return false;
  }
  if (cpu_.profile != nullptr) cpu_.profile->count(Profile::direct_spaces);
  spaces_.push_back(std::move(space));
  active_ = spaces_.back().get();
  return true;
}

void Direct::end(Space& space) {
  if (active_ == &space) active_ = nullptr;
  if (idle_.size() < max_idle && !lost_ && !space.process->failed()) {
    space.process->unmap_all();
    idle_.push_back(std::move(space.process));
  } else {
    destroy(std::move(space.process));
  }
  std::erase_if(spaces_, [&](const auto& one) { return one.get() == &space; });
}

void Direct::destroy(std::unique_ptr<HostProcess> process) {
  const std::lock_guard hold(lock_);
  process.reset();
}

void Direct::give_up(Space& space) {
  Candidates::Candidate& here = candidate();
  here.needed = std::min(4 * std::max(here.needed, 1u), most_patience);
  here.seen = 0;
  end(space);
}

Direct::Space* Direct::find_by_table(uint64_t table) {
  const auto found =
      std::find_if(spaces_.begin(), spaces_.end(), [&](const auto& space) { return space->table == table; });
  if (found == spaces_.end()) return nullptr;
  std::rotate(found, found + 1, spaces_.end());
  return spaces_.back().get();
}

// Guests give the same tables another PCID now and then, or the tables' pages to another process: what is looked up
// again is right for either.
void Direct::address_space_changed(unsigned pcid, bool keep) {
  if (spaces_.empty()) return;
  active_ = find_by_table(cpu_.cr3 & mmu::address_mask);
  if (active_ == nullptr) return;
  if (active_->pcid != pcid || !keep) active_->stale = true;
  active_->pcid = pcid;
}

void Direct::drop_pcid(unsigned pcid) {
  for (const auto& space : spaces_) {
    if (space->pcid == pcid) space->stale = true;
  }
}

void Direct::drop_all() {
  for (const auto& space : spaces_) space->stale = true;
}

void Direct::drop_page(uint64_t linear) {
  if (active_ != nullptr) unmap(*active_, linear & ~(page_size - 1));
}

void Direct::drop_large_page(uint64_t linear, unsigned shift) {
  if (active_ == nullptr) return;
  std::vector<uint64_t> there;
  for (const auto& [page, what] : active_->pages) {
    if ((page ^ linear) >> shift == 0) there.push_back(page);
  }
  std::ranges::sort(there);
  for (const uint64_t page : there) unmap(*active_, page);
}

void Direct::forget_writable(Space& space, uint64_t linear, Gpa gpa) {
  const auto [first, last] = space.linear_pages.equal_range(gpa);
  const auto found = std::find_if(first, last, [&](const auto& entry) { return entry.second == linear; });
  if (found != last) space.linear_pages.erase(found);
}

void Direct::unmap(Space& space, uint64_t linear) {
  const auto found = space.pages.find(linear);
  if (found == space.pages.end()) return;
  if (found->second.writable) forget_writable(space, linear, found->second.gpa);
  space.pages.erase(found);
  space.process->unmap(linear, page_size);
}

// After the guest has flushed: what its tables say as before stays.
void Direct::look_again(Space& space) {
  space.stale = false;
  std::vector<uint64_t> gone;
  for (auto& [linear, page] : space.pages) {
    const mmu::UsedPage seen = mmu::used_page(cpu_, linear);
    const bool code = page.executable || page.sensitive;
    const bool same = seen.used && seen.gpa == page.gpa && (!code || seen.executable) &&
                      (!page.writable || (seen.writable && claim_for_writing(cpu_, page.gpa)));
    if (!same) gone.push_back(linear);
  }
  std::ranges::sort(gone);
  for (const uint64_t linear : gone) unmap(space, linear);
}

void Direct::set_page(Space& space, uint64_t linear, Page page) {
  const auto [place, added] = space.pages.try_emplace(linear);
  if (!added && place->second.writable) forget_writable(space, linear, place->second.gpa);
  if (added && cpu_.profile != nullptr) cpu_.profile->count(Profile::direct_pages);
  place->second = page;
  if (page.writable) space.linear_pages.emplace(page.gpa, linear);
}

void Direct::revoke(Gpa page) {
  const std::lock_guard hold(lock_);
  // A guest may make pages code for ever without executing anything directly.
  constexpr size_t most = 1024;
  if (revoked_.size() < most) {
    revoked_.push_back(page);
  } else {
    more_revoked_ = true;
  }
  any_revoked_.store(true, std::memory_order_release);
}

void Direct::take_revoked() {
  if (!any_revoked_.load(std::memory_order_acquire)) return;
  std::vector<Gpa> pages;
  bool more = false;
  {
    const std::lock_guard hold(lock_);
    pages.swap(revoked_);
    more = std::exchange(more_revoked_, false);
    any_revoked_.store(false, std::memory_order_relaxed);
  }
  for (const auto& space : spaces_) {
    if (!more) break;
    for (const auto& [gpa, linear] : space->linear_pages) {
      if ((cpu_.memory->page_flags(gpa).load() & GuestMemory::code_flag) != 0) pages.push_back(gpa);
    }
  }
  for (const Gpa gpa : pages) {
    for (const auto& space : spaces_) {
      const auto [first, last] = space->linear_pages.equal_range(gpa);
      for (auto at = first; at != last; ++at) {
        Page& page = space->pages[at->second];
        page.writable = false;
        space->process->protect(at->second, page_size, {.write = false, .execute = page.executable});
      }
      space->linear_pages.erase(first, last);
    }
  }
}

}  // namespace caisson::jit
