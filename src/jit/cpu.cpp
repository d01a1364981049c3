#include "jit/cpu.h"

#include <sys/mman.h>

#include "base/check.h"

namespace caisson::jit {

namespace {

// Signal handlers run there, too.
constexpr size_t stack_size = 256 << 10, guard_size = 4096;

}  // namespace

void* Cpu::operator new(size_t size, std::align_val_t) {
  void* got = mmap(nullptr, stack_size + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CAISSON_CHECK(got != MAP_FAILED);
  auto* memory = static_cast<uint8_t*>(got);
  CAISSON_CHECK(mprotect(memory, guard_size, PROT_NONE) == 0);
  return memory + stack_size;
}

void Cpu::operator delete(void* memory, size_t size, std::align_val_t) {
  munmap(static_cast<uint8_t*>(memory) - stack_size, stack_size + size);
}

void update_mode(Cpu& cpu) {
  using namespace x86;
  cpu.paging = cpu.cr0 & cr0::pg;
  cpu.long_mode = cpu.efer & efer::lma;
  const bool protected_mode = cpu.cr0 & cr0::pe;
  const bool vm86 = protected_mode && (cpu.rflags & rflags::vm) != 0;
  cpu.cpl = vm86 ? 3 : !protected_mode ? 0 : static_cast<uint8_t>(cpu.segments[Ss].dpl());
  const Segment& cs = cpu.segments[Cs];
  cpu.code_bits = cpu.long_mode && cs.long_mode() ? 64 : protected_mode && !vm86 && cs.big() ? 32 : 16;
  cpu.stack_32 = cpu.segments[Ss].big() && protected_mode && !vm86;
  if (cpu.cpl == 3) {
    cpu.tlb_mode = TlbMode::User;
  } else if ((cpu.cr4 & cr4::smap) != 0 && (cpu.rflags & rflags::ac) == 0) {
    cpu.tlb_mode = TlbMode::Supervisor;
  } else {
    cpu.tlb_mode = TlbMode::SupervisorUser;
  }
}

bool raise(Cpu& cpu, uint8_t vector) {
  cpu.fault = {.raised = true, .vector = vector};
  return false;
}

bool raise(Cpu& cpu, uint8_t vector, uint32_t error) {
  cpu.fault = {.raised = true, .vector = vector, .has_error = true, .error = error};
  return false;
}

}  // namespace caisson::jit
