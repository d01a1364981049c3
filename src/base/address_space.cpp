#include "base/address_space.h"

#include <sys/mman.h>

namespace caisson {

uint8_t* reserve_address_space(size_t size) {
  constexpr size_t page = 4096;
  size = (size + page - 1) / page * page;
  void* const got = mmap(nullptr, size + huge_page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) return nullptr;
  auto* const whole = static_cast<uint8_t*>(got);
  const auto address = reinterpret_cast<uintptr_t>(whole);
  const size_t before = (huge_page_size - address % huge_page_size) % huge_page_size;
  if (before != 0) munmap(whole, before);
  munmap(whole + before + size, huge_page_size - before);
  return whole + before;
}

}  // namespace caisson
