#include "base/start_up_memory.h"

#include <cstdint>
#include <span>

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

namespace caisson {
namespace {

// The read-only segments of one object. Nothing has been written there, so nothing can be lost: relocations are in
// writable segments (position-independent code; a text relocation would make the object's code writable).
int forget(dl_phdr_info* object, size_t, void*) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (const ElfW(Phdr) & segment : std::span{object->dlpi_phdr, object->dlpi_phnum}) {
    if (segment.p_type == PT_DYNAMIC) {
      for (const auto* entry = reinterpret_cast<const ElfW(Dyn)*>(object->dlpi_addr + segment.p_vaddr);
           entry->d_tag != DT_NULL; ++entry) {
        if (entry->d_tag == DT_TEXTREL) return 0;
      }
    }
  }
  for (const ElfW(Phdr) & segment : std::span{object->dlpi_phdr, object->dlpi_phnum}) {
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const uintptr_t start = (object->dlpi_addr + segment.p_vaddr) & ~(page - 1);
    const uintptr_t end = object->dlpi_addr + segment.p_vaddr + segment.p_memsz;
    // Refused for the kernel's own pages (vDSO), which is as well.
    ::madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
  }
  return 0;
}

}  // namespace

void give_back_start_up_memory() {
  ::malloc_trim(0);
  ::dl_iterate_phdr(forget, nullptr);
}

}  // namespace caisson
