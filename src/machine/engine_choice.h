// Which engine runs a machine: as configured, or by measurement.
//   Threads  before the machine runs
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "control/vm_config.h"
#include "engine/engine.h"

namespace caisson::machine {

struct ChosenEngine {
  std::unique_ptr<Engine> engine;
  std::string_view name;  // "jit" or "kvm"
  std::string reason;     // one line
};

// `dump_fd`: for translated blocks, or -1; stays the caller's as long as the engine lives. `kvm`: /dev/kvm, or nothing. With EngineChoice::Auto whatever is wrong with /dev/kvm leads to the jit engine, and is
// the reason; with Kvm it is the error.
[[nodiscard]] Result<ChosenEngine> choose_engine(const control::VmConfig& config, const EngineServices& services,
                                                 Fd kvm, int dump_fd);
// The jit engine in place of one that cannot go on.
[[nodiscard]] Result<ChosenEngine> jit_instead(const control::VmConfig& config, const EngineServices& services,
                                               std::string reason);

}  // namespace caisson::machine
