#include "kvm/direct_memory.h"

#include <algorithm>

#include <linux/kvm.h>

#include "base/log.h"

namespace caisson::kvm {

KvmDirectMemory::KvmDirectMemory(const KvmDevice& device, int vm_fd, uint32_t first_slot, DirtyBitmaps bitmaps)
    : vm_fd_(vm_fd), first_slot_(first_slot), bitmaps_(bitmaps), read_only_(device.has(KVM_CAP_READONLY_MEM)) {}

uint32_t KvmDirectMemory::free_slot() const {
  uint32_t slot = first_slot_;
  while (std::ranges::any_of(bound_, [slot](const auto& one) { return one.second.number == slot; })) ++slot;
  return slot;
}

bool KvmDirectMemory::bind(uint64_t address, std::span<uint8_t> memory, bool writable) {
  if (bound_.contains(address) || (!writable && !read_only_)) return false;
  const MemorySlot slot{free_slot(), address, memory.size(), memory.data()};
  const uint32_t flags = !writable ? KVM_MEM_READONLY : bitmaps_ != DirtyBitmaps::Absent ? KVM_MEM_LOG_DIRTY_PAGES : 0;
  // The kernel refuses what lies over guest memory: that was there before, also for accesses that leave the guest.
  if (!set_memory_slot(vm_fd_, slot, flags)) return false;
  bound_.emplace(address, slot);
  return true;
}

void KvmDirectMemory::unbind(uint64_t address) {
  const auto found = bound_.find(address);
  if (found == bound_.end()) return;
  MemorySlot gone = found->second;
  gone.size = 0;
  if (auto done = set_memory_slot(vm_fd_, gone, 0); !done) log::error("{}", done.error().message);
  bound_.erase(found);
}

bool KvmDirectMemory::written(uint64_t address) {
  const auto found = bound_.find(address);
  if (found == bound_.end()) return false;
  if (bitmaps_ == DirtyBitmaps::Absent || !take_dirty_bitmap(vm_fd_, found->second, bitmaps_, bits_)) return true;
  return std::ranges::any_of(bits_, [](uint64_t word) { return word != 0; });
}

}  // namespace caisson::kvm
