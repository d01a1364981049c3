// caisson ssh, exec, cp: into a machine of an image by the key and port of life/ssh_key.h.
//   Threads  main thread
#pragma once

#include <string>
#include <vector>

namespace caisson::cli {

// caisson ssh, exec, cp: exit statuses; 255 where the machine cannot be reached. They wait for its ssh server.
[[nodiscard]] int ssh_command(const std::string& name, const std::vector<std::string>& words);
[[nodiscard]] int exec_command(const std::string& name, const std::vector<std::string>& words);
// One of the two is NAME:PATH.
[[nodiscard]] int copy_command(const std::string& from, const std::string& to, bool recursive);

}  // namespace caisson::cli
