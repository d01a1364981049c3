// From a machine whose files are open to a VMM that runs it.
//   Order    the folder's lock is held by the caller; then life is taken, the control socket bound, logs opened, the
//   VMM
//            started and told; what is true afterwards is what the VMM says
//   Threads  any
#pragma once

#include <optional>
#include <vector>

#include <sys/types.h>

#include "base/result.h"
#include "base/tsc_reading.h"
#include "control/messages.h"
#include "life/machine_files.h"
#include "life/vmm_process.h"
#include "store/vm_folder.h"

namespace caisson::life {

struct Launch {
  VmmProcess process;
  VmmLink link;
  // What the VMM has said so far. The last is Started or Exited; neither: it has ended without a word.
  std::vector<control::Event> events;
};

// `folder`: null for a machine that has none. `detached`: the VMM outlives this process.
[[nodiscard]] Result<Launch> launch(Machine machine, const store::VmFolder* folder, bool detached,
                                    const TscReading& before);

// For a detached machine: its VMM, when it runs; it stays a child of this process, which has to wait for its end where
// it goes on itself. Else why it does not run.
[[nodiscard]] Result<pid_t> leave_running(Launch launch, const std::string& name);

// `start`: makes a machine of the store run on its own. Takes the lock itself.
[[nodiscard]] Result<pid_t> start_machine(const store::VmFolder& folder, const TscReading& before);
// With the lock held.
[[nodiscard]] Result<pid_t> start_locked(const store::VmFolder& folder, const TscReading& before);

}  // namespace caisson::life
