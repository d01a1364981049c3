#include "memory/guest_memory.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>

#include "base/address_space.h"
#include "memory/dirty_log.h"

namespace caisson {

Result<std::unique_ptr<GuestMemory>> GuestMemory::create(uint64_t size, const Layout& layout) {
  if (size < (1u << 20) || size % page_size != 0) {
    return fail("memory of {} bytes: it must be at least 1 MiB and a multiple of 4096 bytes", size);
  }
  std::unique_ptr<GuestMemory> memory{new GuestMemory};
  memory->size_ = size;
  memory->low_size_ = std::min<uint64_t>(size, layout.low_end);
  if (layout.video_window) {
    memory->window_start_ = video_start;
    memory->window_end_ = video_end;
  }
  memory->high_size_ = size - memory->low_size_;
  memory->memfd_ = Fd{memfd_create("caisson-guest-ram", MFD_CLOEXEC)};
  if (!memory->memfd_.valid()) return fail_errno(errno, "create guest memory");
  if (ftruncate(memory->memfd_.get(), static_cast<off_t>(size)) != 0) {
    return fail_errno(errno, fmt::format("reserve {} MiB of guest memory; choose a smaller --memory", size >> 20));
  }
  memory->rom_room_ = layout.rom_room;
  // One linear reservation: low RAM, the hole with the ROM at its end, high RAM, and a guard page.
  memory->reserved_ = std::max(memory->end(), layout.rom_room != 0 ? high_start : 0) + page_size;
  memory->base_ = reserve_address_space(memory->reserved_);
  if (memory->base_ == nullptr) return fail_errno(errno, "reserve address space for guest memory");
  const auto map = [&](Gpa gpa, uint64_t length, uint64_t offset) {
    return mmap(memory->base_ + gpa, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory->memfd_.get(),
                static_cast<off_t>(offset)) != MAP_FAILED;
  };
  if (!map(0, memory->low_size_, 0) ||
      (memory->high_size_ != 0 && !map(high_start, memory->high_size_, memory->low_size_))) {
    return fail_errno(errno, fmt::format("map {} MiB of guest memory; choose a smaller --memory", size >> 20));
  }
  // Advice only: fewer page faults and translations where the host allows huge pages on shared memory.
  madvise(memory->base_, memory->low_size_, MADV_HUGEPAGE);
  if (memory->high_size_ != 0) madvise(memory->base_ + high_start, memory->high_size_, MADV_HUGEPAGE);
  // Zeroed by the operating system, and only where it is touched.
  const uint64_t pages = (size + layout.rom_room) / page_size;
  memory->flags_.reset(static_cast<std::atomic<uint32_t>*>(std::calloc(pages, sizeof(std::atomic<uint32_t>))));
  if (memory->flags_ == nullptr) return fail("not enough memory for the flags of {} MiB of guest memory", size >> 20);
  return memory;
}

GuestMemory::~GuestMemory() {
  if (base_ != nullptr) munmap(base_, reserved_);
}

Result<> GuestMemory::set_rom(std::span<const uint8_t> image) {
  if (image.empty() || image.size() % page_size != 0 || image.size() > rom_room_ || rom_size_ != 0) {
    return fail("read-only memory of {} bytes: it must be a multiple of 4096 bytes, at most {}", image.size(),
                rom_room_);
  }
  uint8_t* at = base_ + high_start - image.size();
  if (mmap(at, image.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
    return fail_errno(errno, "map read-only memory");
  }
  std::memcpy(at, image.data(), image.size());
  if (mprotect(at, image.size(), PROT_READ) != 0) return fail_errno(errno, "protect read-only memory");
  rom_size_ = image.size();
  return {};
}

bool GuestMemory::read(Gpa gpa, std::span<uint8_t> out) const {
  const auto from = span(gpa, out.size());
  if (from.size() != out.size()) return false;
  if (!out.empty()) std::memcpy(out.data(), from.data(), out.size());
  return true;
}

bool GuestMemory::read_with_rom(Gpa gpa, std::span<uint8_t> out) const {
  if (gpa - rom_start() >= rom_size_) return read(gpa, out);
  if (out.size() > high_start - gpa) return false;
  if (!out.empty()) std::memcpy(out.data(), base_ + gpa, out.size());
  return true;
}

bool GuestMemory::write(Gpa gpa, std::span<const uint8_t> in) {
  const auto to = span(gpa, in.size());
  if (to.size() != in.size()) return false;
  if (!in.empty()) std::memcpy(to.data(), in.data(), in.size());
  written(gpa, in.size());
  return true;
}

void GuestMemory::written(Gpa gpa, uint64_t length) {
  if (length == 0 || !contains(gpa, length)) return;
  // The bytes before the flag: whoever sets the flag later than this looks at the new bytes.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const Gpa last = (gpa + length - 1) / page_size * page_size;
  DirtyPages* dirty = dirty_.load(std::memory_order_acquire);
  for (Gpa page = gpa / page_size * page_size; page <= last; page += page_size) {
    if (dirty != nullptr) dirty->add(page_index(page));
    if ((page_flags(page).load(std::memory_order_acquire) & code_flag) == 0 || observer_ == nullptr) continue;
    const Gpa from = std::max(gpa, page);
    observer_->code_written(from, std::min(gpa + length, page + page_size) - from);
  }
}

void GuestMemory::note_dirty(Gpa page) {
  if (DirtyPages* dirty = dirty_.load(std::memory_order_acquire)) dirty->add(page_index(page));
}

void GuestMemory::discard(Gpa gpa, uint64_t length) {
  if (length == 0 || gpa % page_size != 0 || length % page_size != 0 || !contains(gpa, length)) return;
  // In the file: so every mapping of these pages has lost them. A host that cannot do it keeps them.
  const auto offset = static_cast<off_t>(page_index(gpa) * page_size);
  if (fallocate(memfd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(length)) != 0) {
    return;
  }
  written(gpa, length);
}

Result<> GuestMemory::clear() {
  if (fallocate(memfd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size_)) != 0) {
    return fail_errno(errno, "clear guest memory");
  }
  if (DirtyPages* dirty = dirty_.load()) dirty->add_all();
  return {};
}

}  // namespace caisson
