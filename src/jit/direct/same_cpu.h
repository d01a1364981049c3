// Keeps a vCPU's thread and the processes that run its user code on one CPU of the host: handing over takes 3 µs there,
// and 11 µs (or more, where the host itself is a virtual machine) from one CPU to another that was idle.
//   Threads  the vCPU's own; different vCPUs of a process avoid each other's CPU
#pragma once

#include <sched.h>
#include <sys/types.h>

namespace caisson::jit {

class SameCpu {
 public:
  SameCpu() = default;
  ~SameCpu() { leave(); }
  SameCpu(const SameCpu&) = delete;
  SameCpu& operator=(const SameCpu&) = delete;

  // The calling thread stays on its CPU from now on, or on one that fewer others of this process have chosen. Nothing
  // happens where the host does not allow it.
  void stay();
  // It may run anywhere again, as before stay().
  void leave();
  // Somebody else needs this CPU: stays on another one, if there is any.
  void move();
  // -1: anywhere
  [[nodiscard]] int cpu() const { return cpu_; }

 private:
  void stay_on(int cpu);

  int cpu_ = -1;
  cpu_set_t before_{};
};

// That process or thread runs on this CPU only.
void run_on(pid_t process, int cpu);

}  // namespace caisson::jit
