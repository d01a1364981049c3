// The way into a machine of an image: a key of this user that its root accepts, and a port of this host that leads
// there.
//   Key      <data>/caisson/ssh/id_ed25519, made by ssh-keygen when first needed; the public half and the machine's
//   name
//            are told on the kernel's command line, where the image's caisson-seed.service reads them
//   Port     a free one of 127.0.0.1, chosen at each start
//   Threads  main thread
#pragma once

#include <string>
#include <vector>

#include "control/vm_config.h"

namespace caisson::cli {

constexpr uint32_t ssh_guest_port = 22;

// Adds both, where they can be had: without ssh on this host, or without a network, the machine runs all the same.
void add_ssh(control::VmConfig& config);

// caisson ssh, exec, cp: exit statuses; 255 where the machine cannot be reached. They wait for its ssh server.
[[nodiscard]] int ssh_command(const std::string& name, const std::vector<std::string>& words);
[[nodiscard]] int exec_command(const std::string& name, const std::vector<std::string>& words);
// One of the two is NAME:PATH.
[[nodiscard]] int copy_command(const std::string& from, const std::string& to, bool recursive);

}  // namespace caisson::cli
