// What the guest's tables say of a page of user memory, without leaving a trace in them: for those who bring pages in
// before they are asked for.
//   Source   Intel SDM vol. 3, 4.5.4 (4-level paging), 4.6 (access rights), 4.8 (accessed and dirty flags)
//   Threads  the vCPU's own
#pragma once

#include "jit/cpu.h"

namespace caisson::jit::mmu {

struct UsedPage {
  bool used = false;        // present, for user accesses, and accessed before
  bool writable = false;    // and written before
  bool executable = false;  // as far as the tables have a say
  Gpa gpa = 0;
};
[[nodiscard]] UsedPage used_page(const Cpu& cpu, uint64_t linear);

}  // namespace caisson::jit::mmu
