// The signal that brings a thread out of KVM_RUN.
#pragma once

#include <csignal>

namespace caisson::kvm {

inline constexpr int kick_signal = SIGUSR1;

// Gives the signal a handler that does nothing; other system calls go on as if it had not come. Any thread, any number
// of times.
inline void install_kick_signal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  action.sa_flags = SA_RESTART;  // KVM_RUN ends all the same
  ::sigaction(kick_signal, &action, nullptr);
}

}  // namespace caisson::kvm
