// Which engine runs a machine: as configured, or by measurement.
//   Threads  before the machine runs
#pragma once

#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/fd.h"
#include "control/vm_config.h"
#include "engine/engine.h"
#include "kvm/probe.h"

namespace caisson::machine {

struct ChosenEngine {
  std::unique_ptr<Engine> engine;
  std::string_view name;  // "jit" or "kvm"
  std::string reason;     // one line
};

// The measurement, in a thread of its own from construction on: it takes milliseconds in which other things can be
// done.
class EngineProbe {
 public:
  // Measures where `config` leaves the choice to us and `kvm` is /dev/kvm.
  EngineProbe(const control::VmConfig& config, const Fd& kvm);
  ~EngineProbe();
  EngineProbe(const EngineProbe&) = delete;
  EngineProbe& operator=(const EngineProbe&) = delete;
  [[nodiscard]] kvm::Verdict wait();  // once, where it measures

 private:
  Fd kvm_;
  std::promise<kvm::Verdict> verdict_;
  std::thread thread_;
};

// `kvm`: /dev/kvm, or nothing. With EngineChoice::Auto whatever is wrong with /dev/kvm leads to the jit engine, and is
// the reason; with Kvm it is the error. `dump_fd`: for translated blocks, or -1; the caller's, who keeps it open.
[[nodiscard]] Result<ChosenEngine> choose_engine(const control::VmConfig& config, const EngineServices& services,
                                                 Fd kvm, EngineProbe& probe, int dump_fd);
// The jit engine in place of one that cannot go on.
[[nodiscard]] Result<ChosenEngine> jit_instead(const control::VmConfig& config, const EngineServices& services,
                                               std::string reason);

}  // namespace caisson::machine
