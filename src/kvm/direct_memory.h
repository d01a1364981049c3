// Memory of devices as slots of the kernel's, so that the guest reads and writes it without an exit.
//   Source   Linux Documentation/virt/kvm/api.rst: KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG
//   Threads  under the device lock
#pragma once

#include <map>
#include <vector>

#include "bus/direct_memory.h"
#include "kvm/write_log.h"

namespace caisson::kvm {

class KvmDirectMemory final : public DirectBinder {
 public:
  // Slots from `first_slot` on are its own.
  KvmDirectMemory(const KvmDevice& device, int vm_fd, uint32_t first_slot, DirtyBitmaps bitmaps);

  [[nodiscard]] bool bind(uint64_t address, std::span<uint8_t> memory, bool writable) override;
  void unbind(uint64_t address) override;
  [[nodiscard]] bool written(uint64_t address) override;

 private:
  [[nodiscard]] uint32_t free_slot() const;

  const int vm_fd_;
  const uint32_t first_slot_;
  const DirtyBitmaps bitmaps_;
  const bool read_only_;  // the kernel knows slots that cannot be written
  std::map<uint64_t, MemorySlot> bound_;
  std::vector<uint64_t> bits_;
};

}  // namespace caisson::kvm
