// The guest's writes as the kernel logs them: by a bitmap for each memory slot, or by a ring for each vCPU.
//   Source   Linux Documentation/virt/kvm/api.rst: KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG, KVM_CAP_DIRTY_LOG_RING
//   Choice   a bitmap costs by the size of memory, a ring by the number of pages written; a machine has one or the
//   other
//            all its life
//   Threads  as in memory/dirty_log.h; ring_full() by vCPU threads
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "kvm/device.h"
#include "memory/dirty_log.h"

namespace caisson::kvm {

// A slot of guest memory, as it is given to the kernel.
struct MemorySlot {
  uint32_t number;
  Gpa start;
  uint64_t size;    // bytes; 0: the slot goes
  uint8_t* memory;  // the host's
};

// `flags`: KVM_MEM_….
[[nodiscard]] Result<> set_memory_slot(int vm_fd, const MemorySlot& slot, uint32_t flags);

// Whether a machine's slots have bitmaps of what was written, and who makes a bit 0 that was read.
enum class DirtyBitmaps : uint8_t { Absent, ClearedByKernel, ClearedByUs };

// Moves the bitmap of a slot with KVM_MEM_LOG_DIRTY_PAGES to `bits`, a bit for each page.
[[nodiscard]] Result<> take_dirty_bitmap(int vm_fd, const MemorySlot& slot, DirtyBitmaps kind,
                                         std::vector<uint64_t>& bits);

class KvmWriteLog : public GuestWriteLog {
 public:
  [[nodiscard]] Result<> start() override;
  void stop() override;
  // By vCPUs as they are made; kept by the log.
  [[nodiscard]] virtual Result<> add_vcpu(int) { return {}; }
  // A vCPU cannot go on before its ring has room; false where it gets none.
  [[nodiscard]] virtual bool ring_full() { return false; }
  [[nodiscard]] virtual DirtyBitmaps bitmaps() const = 0;

 protected:
  KvmWriteLog(int vm_fd, const GuestMemory& memory, std::vector<MemorySlot> slots)
      : vm_fd_(vm_fd), memory_(memory), slots_(std::move(slots)) {}
  virtual void forget() = 0;  // what was logged before

  const int vm_fd_;
  const GuestMemory& memory_;
  const std::vector<MemorySlot> slots_;
};

// `ring_entries` 0: a bitmap. Else a power of two, from 1024 on; before any vCPU is created.
[[nodiscard]] Result<std::unique_ptr<KvmWriteLog>> create_write_log(const KvmDevice& device, int vm_fd,
                                                                    const GuestMemory& memory,
                                                                    std::vector<MemorySlot> slots,
                                                                    uint32_t ring_entries);

}  // namespace caisson::kvm
