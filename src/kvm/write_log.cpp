#include "kvm/write_log.h"

#include <bit>

#include <linux/kvm.h>
#include <sys/mman.h>

#include "base/log.h"

namespace caisson::kvm {

Result<> set_memory_slot(int vm_fd, const MemorySlot& slot, uint32_t flags) {
  kvm_userspace_memory_region region{};
  region.slot = slot.number;
  region.flags = flags;
  region.guest_phys_addr = slot.start;
  region.memory_size = slot.size;
  region.userspace_addr = reinterpret_cast<uint64_t>(slot.memory);
  if (control(vm_fd, KVM_SET_USER_MEMORY_REGION, &region) == 0) return {};
  return fail_errno(errno, fmt::format("/dev/kvm: add {} KiB of guest memory at {:#x}", slot.size >> 10, slot.start));
}

Result<> take_dirty_bitmap(int vm_fd, const MemorySlot& slot, DirtyBitmaps kind, std::vector<uint64_t>& bits) {
  const uint64_t pages = slot.size / page_size;
  bits.assign((pages + 63) / 64, 0);
  kvm_dirty_log log{};
  log.slot = slot.number;
  log.dirty_bitmap = bits.data();
  if (control(vm_fd, KVM_GET_DIRTY_LOG, &log) != 0) return fail_errno(errno, "/dev/kvm: read the dirty log");
  kvm_clear_dirty_log clear{};
  clear.slot = slot.number;
  clear.num_pages = static_cast<uint32_t>(pages);
  clear.dirty_bitmap = bits.data();
  if (kind == DirtyBitmaps::ClearedByUs && control(vm_fd, KVM_CLEAR_DIRTY_LOG, &clear) != 0) {
    return fail_errno(errno, "/dev/kvm: clear the dirty log");
  }
  return {};
}

namespace {

class BitmapLog final : public KvmWriteLog {
 public:
  BitmapLog(int vm_fd, const GuestMemory& memory, std::vector<MemorySlot> slots, DirtyBitmaps kind)
      : KvmWriteLog(vm_fd, memory, std::move(slots)), kind_(kind) {}

  DirtyBitmaps bitmaps() const override { return kind_; }

  Result<> gather(DirtyPages& into) override {
    for (const MemorySlot& slot : slots_) {
      const size_t first = memory_.page_index(slot.start);
      if (auto done = take_dirty_bitmap(vm_fd_, slot, kind_, bits_); !done) return done;
      for (size_t word = 0; word < bits_.size(); ++word) {
        for (uint64_t left = bits_[word]; left != 0; left &= left - 1) {
          into.add(first + 64 * word + static_cast<size_t>(std::countr_zero(left)));
        }
      }
    }
    return {};
  }

 private:
  // Taking a slot's flag away has dropped its bitmap.
  void forget() override {}

  const DirtyBitmaps kind_;
  std::vector<uint64_t> bits_;
};

class RingLog final : public KvmWriteLog {
 public:
  RingLog(int vm_fd, const GuestMemory& memory, std::vector<MemorySlot> slots, uint32_t entries)
      : KvmWriteLog(vm_fd, memory, std::move(slots)), entries_(entries), found_(memory.size() / page_size) {}
  ~RingLog() override {
    for (const Ring& ring : rings_) ::munmap(ring.entries, entries_ * sizeof(kvm_dirty_gfn));
  }

  Result<> add_vcpu(int vcpu_fd) override {
    void* at = ::mmap(nullptr, entries_ * sizeof(kvm_dirty_gfn), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd,
                      KVM_DIRTY_LOG_PAGE_OFFSET * page_size);
    if (at == MAP_FAILED) return fail_errno(errno, "/dev/kvm: map a vCPU's dirty ring");
    const std::lock_guard hold(lock_);
    rings_.push_back({static_cast<kvm_dirty_gfn*>(at), 0});
    return {};
  }

  DirtyBitmaps bitmaps() const override { return DirtyBitmaps::Absent; }

  bool ring_full() override {
    const auto found = harvest();
    return found && *found;
  }

  Result<> gather(DirtyPages& into) override {
    const auto done = harvest();
    found_.move_to(into);
    return done ? Result<>{} : std::unexpected(done.error());
  }

 private:
  struct Ring {
    kvm_dirty_gfn* entries;
    uint32_t next;
  };

  void forget() override {
    (void)harvest();
    DirtyPages nobody{found_.size()};
    found_.move_to(nobody);
  }

  // The kernel hands an entry over with the flag "dirty", and takes it back with "reset". Whether there were any.
  Result<bool> harvest() {
    const std::lock_guard hold(lock_);
    bool any = false;
    for (Ring& ring : rings_) {
      for (uint32_t i = 0; i < entries_; ++i) {
        kvm_dirty_gfn& entry = ring.entries[ring.next % entries_];
        const std::atomic_ref<uint32_t> flags(entry.flags);
        if ((flags.load(std::memory_order_acquire) & KVM_DIRTY_GFN_F_DIRTY) == 0) break;
        for (const MemorySlot& slot : slots_) {
          if (slot.number == (entry.slot & 0xffff) && entry.offset < slot.size / page_size) {
            found_.add(memory_.page_index(slot.start) + entry.offset);
          }
        }
        flags.store(KVM_DIRTY_GFN_F_RESET, std::memory_order_release);
        ++ring.next;
        any = true;
      }
    }
    if (any && control(vm_fd_, KVM_RESET_DIRTY_RINGS, 0) < 0) return fail_errno(errno, "/dev/kvm: reset dirty rings");
    return any;
  }

  const uint32_t entries_;
  std::mutex lock_;
  std::vector<Ring> rings_;
  DirtyPages found_;
};

}  // namespace

Result<> KvmWriteLog::start() {
  forget();
  for (const MemorySlot& slot : slots_) {
    if (auto done = set_memory_slot(vm_fd_, slot, KVM_MEM_LOG_DIRTY_PAGES); !done) {
      stop();
      return done;
    }
  }
  return {};
}

void KvmWriteLog::stop() {
  for (const MemorySlot& slot : slots_) {
    if (auto done = set_memory_slot(vm_fd_, slot, 0); !done) log::error("{}", done.error().message);
  }
}

Result<std::unique_ptr<KvmWriteLog>> create_write_log(const KvmDevice& device, int vm_fd, const GuestMemory& memory,
                                                      std::vector<MemorySlot> slots, uint32_t ring_entries) {
  kvm_enable_cap enable{};
  if (ring_entries != 0) {
    enable.cap = KVM_CAP_DIRTY_LOG_RING;
    enable.args[0] = ring_entries * sizeof(kvm_dirty_gfn);
    if (!device.has(KVM_CAP_DIRTY_LOG_RING)) {
      return fail("/dev/kvm: the host's kernel lacks KVM_CAP_DIRTY_LOG_RING; use Linux 5.11 or newer, or a bitmap");
    }
    if (control(vm_fd, KVM_ENABLE_CAP, &enable) != 0) {
      return fail_errno(errno, fmt::format("/dev/kvm: dirty rings of {} entries", ring_entries));
    }
    return std::make_unique<RingLog>(vm_fd, memory, std::move(slots), ring_entries);
  }
  enable.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
  enable.args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
  const bool manual = device.has(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) && control(vm_fd, KVM_ENABLE_CAP, &enable) == 0;
  return std::make_unique<BitmapLog>(vm_fd, memory, std::move(slots),
                                     manual ? DirtyBitmaps::ClearedByUs : DirtyBitmaps::ClearedByKernel);
}

}  // namespace caisson::kvm
