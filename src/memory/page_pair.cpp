#include "memory/page_pair.h"

#include <sys/mman.h>

namespace caisson {

PagePair::~PagePair() {
  if (base_ != nullptr) munmap(base_, 2 * page_size);
}

uint8_t* PagePair::map(const GuestMemory& memory, Gpa first, Gpa second) {
  if (base_ == nullptr) {
    void* reserved = mmap(nullptr, 2 * page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (reserved == MAP_FAILED) return nullptr;
    base_ = static_cast<uint8_t*>(reserved);
  }
  const auto place = [&](unsigned which, Gpa page) {
    const uint64_t index = memory.page_index(page);
    if (mapped_[which] == index) return true;
    mapped_[which] = none;
    if (mmap(base_ + which * page_size, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory.memfd(),
             static_cast<off_t>(index * page_size)) == MAP_FAILED) {
      return false;
    }
    mapped_[which] = index;
    return true;
  };
  return place(0, first) && place(1, second) ? base_ : nullptr;
}

}  // namespace caisson
