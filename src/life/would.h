// What an operation would do with a machine, or why it could not: --dry-run of the command line and of REST.
//   Threads  any
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "store/vm_folder.h"

namespace caisson::life {

enum class Operation : uint8_t { Start, Stop, Restart, Kill, Reset, PowerButton, Pause, Resume, Remove, ForcedRemove };

// "start web": what comes after "would". Nothing is done.
[[nodiscard]] Result<std::string> would(Operation operation, const store::VmFolder& folder);

}  // namespace caisson::life
