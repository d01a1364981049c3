// The way into a machine of an image: a key of this user that its root accepts, and a port of this host that leads
// there.
//   Key      <data>/caisson/ssh/id_ed25519, made by ssh-keygen when first needed; the public half and the machine's
//   name
//            are told on the kernel's command line, where the image's caisson-seed.service reads them
//   Port     a free one of 127.0.0.1, chosen at each start
//   Threads  any
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "control/vm_config.h"

namespace caisson::life {

constexpr uint32_t ssh_guest_port = 22;

// Where the key is, made already or not.
[[nodiscard]] Result<std::string> ssh_key_file();

// Tells the guest its name.
void add_name(control::VmConfig& config);

// Its public half as ssh writes it, without a comment; made where there is none.
[[nodiscard]] Result<std::string> ssh_public_key();

// Adds both, where they can be had: without ssh on this host, or without a network, the machine runs all the same.
void add_ssh(control::VmConfig& config);

}  // namespace caisson::life
