// Into a machine of an image by the key and port of life/ssh_key.h: caisson ssh, and exec and cp where no agent
// answers.
//   Threads  main thread
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/guest_copy.h"

namespace caisson::cli {

// Exit statuses; 255 where the machine cannot be reached. They become ssh (scp), so they return after errors only.
[[nodiscard]] int ssh_command(const std::string& name, const std::vector<std::string>& words);
[[nodiscard]] int execute_by_ssh(uint32_t port, const std::vector<std::string>& words, bool terminal);
[[nodiscard]] int copy_by_ssh(uint32_t port, const Copy& copy);

}  // namespace caisson::cli
