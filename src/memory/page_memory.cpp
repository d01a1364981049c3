#include "memory/page_memory.h"

#include <cstring>

#include <sys/mman.h>

#include "base/check.h"
#include "memory/guest_memory.h"

namespace caisson {

PageMemory::PageMemory(size_t size) : size_(size) {
  CAISSON_CHECK(size != 0 && size % page_size == 0);
  void* const got = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CAISSON_CHECK(got != MAP_FAILED);
  at_ = static_cast<uint8_t*>(got);
}

PageMemory::~PageMemory() { ::munmap(at_, size_); }

void PageMemory::clear() {
  if (::madvise(at_, size_, MADV_DONTNEED) != 0) std::memset(at_, 0, size_);
}

}  // namespace caisson
