// Opens what a machine is made of: the VMM opens nothing by path.
//   Threads  any
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "control/vm_config.h"
#include "store/vm_spec.h"

namespace caisson::life {

// The configuration and the descriptors it counts.
struct Machine {
  control::VmConfig config;
  std::vector<Fd> fds;

  uint32_t add(Fd fd) {
    fds.push_back(std::move(fd));
    return static_cast<uint32_t>(fds.size() - 1);
  }
};

// What a machine is made of, without its files.
[[nodiscard]] store::VmSpec to_spec(const control::VmConfig& config);
// The configuration that `spec` says, without any descriptor.
[[nodiscard]] control::VmConfig to_config(const store::VmSpec& spec, const std::string& name);
// A path for messages: short enough, and with nothing that could break a line.
[[nodiscard]] std::string label(std::string path);

// One more disk of `spec`, whose own list may have it or not: its files are opened and locked.
[[nodiscard]] Result<> add_disk(Machine& machine, const store::VmSpec& spec, const store::DiskSpec& disk,
                                const std::string& folder);

// `folder`: of the machine; files that have no path of their own are there.
[[nodiscard]] Result<Machine> open_machine(const store::VmSpec& spec, control::VmConfig config,
                                           const std::string& folder);

}  // namespace caisson::life
