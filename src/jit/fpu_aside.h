// Sanitizers put calls to their run-time library, which uses vector registers, even into code compiled without: in such
// builds the guest's FPU state is put away while C++ runs, and brought back before translated code goes on.
//   Threads  the vCPU's own thread
#pragma once

#include "jit/fpu.h"

namespace caisson::jit {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool vector_registers_unsafe = true;
#else
inline constexpr bool vector_registers_unsafe = false;
#endif

class FpuAside {
 public:
  // `general`: code follows that may use vector registers in every build.
  explicit FpuAside(Cpu& cpu, bool general = vector_registers_unsafe) : cpu_(cpu), live_(general && cpu.fpu_live) {
    if (live_) fpu_put_away(cpu_);
  }
  ~FpuAside() {
    if (live_) fpu_bring_back(cpu_);
  }
  FpuAside(const FpuAside&) = delete;
  FpuAside& operator=(const FpuAside&) = delete;

 private:
  Cpu& cpu_;
  const bool live_;
};

}  // namespace caisson::jit
