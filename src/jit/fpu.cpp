#include "jit/fpu.h"

#include <cpuid.h>

namespace caisson::jit {
namespace {

uint64_t host_xcr0() {
  uint32_t eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & bit_OSXSAVE) == 0) return 0;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// x87, SSE, AVX, opmask, ZMM_Hi256, Hi16_ZMM (vol. 1, 13.1).
constexpr uint64_t offered_components = 0xe7;

}  // namespace

uint64_t fpu_components() {
  static const uint64_t components = host_xcr0() & offered_components;
  return components;
}

void fpu_init(Cpu& cpu) {
  cpu.fpu_live = false;
  cpu.xsave.fill(0);
  // With XSTATE_BV clear every component takes its initial configuration; FCW and MXCSR for readers of the image.
  cpu.xsave[0] = 0x7f;
  cpu.xsave[1] = 0x03;
  cpu.xsave[24] = 0x80;
  cpu.xsave[25] = 0x1f;
}

void fpu_put_away(Cpu& cpu) {
  if (!cpu.fpu_live) return;
  cpu.fpu_live = false;
  const uint64_t mask = fpu_components();
  if (mask != 0) {
    asm volatile("xsave64 %0"
                 : "+m"(cpu.xsave)
                 : "a"(static_cast<uint32_t>(mask)), "d"(static_cast<uint32_t>(mask >> 32))
                 : "memory");
  } else {
    asm volatile("fxsave64 %0" : "+m"(cpu.xsave)::"memory");
  }
  // FIP and FDP hold host addresses of translated code, and FOP a rewritten opcode: the guest must never see them.
  std::fill(cpu.xsave.begin() + 6, cpu.xsave.begin() + 24, uint8_t{0});
  // General code expects the default controls.
  const uint32_t mxcsr = 0x1f80;
  asm volatile("ldmxcsr %0; fninit" ::"m"(mxcsr));
}

void fpu_bring_back(Cpu& cpu) {
  if (cpu.fpu_live) return;
  cpu.fpu_live = true;
  const uint64_t mask = fpu_components();
  if (mask != 0) {
    asm volatile("xrstor64 %0" ::"m"(cpu.xsave), "a"(static_cast<uint32_t>(mask)),
                 "d"(static_cast<uint32_t>(mask >> 32))
                 : "memory");
  } else {
    asm volatile("fxrstor64 %0" ::"m"(cpu.xsave) : "memory");
  }
}

}  // namespace caisson::jit
