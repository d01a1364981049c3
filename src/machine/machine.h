// One virtual machine: turns a configuration into running devices and CPUs. The only place that names concrete devices
// and engines.
//   Threads  run() uses the calling thread for the event loop and starts one thread for each vCPU
#pragma once

#include <vector>

#include "base/fd.h"
#include "control/channel.h"
#include "control/vm_config.h"

namespace caisson::machine {

// Runs the machine to its end, answering requests on `channel` and telling events, the last of which is Exited.
// `fds`: the descriptors that the configuration's *_fd members count. Returns the process's exit status: 0 where Exited
// was told, whatever its reason.
[[nodiscard]] int run(const control::VmConfig& config, std::vector<Fd> fds, control::Channel& channel);

}  // namespace caisson::machine
