// Where viewers of a machine's screen connect (VNC).
//   Forms    "unix": the socket `vnc` in the machine's folder, for this user alone; "127.0.0.1:5901": a port of the
//            loopback, with a password
//   Threads  any
#pragma once

#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "life/machine_files.h"
#include "store/vm_folder.h"

namespace caisson::life {

// The errors begin with "--vnc".
[[nodiscard]] Result<> check_vnc(std::string_view where);

// The socket, bound, and the password, for the VMM. `folder`: of the machine; empty where it has none.
[[nodiscard]] Result<> add_vnc(Machine& machine, const store::VmSpec& spec, const std::string& folder);

// Connected as a viewer.
[[nodiscard]] Result<Fd> connect_vnc(const store::VmFolder& folder, const store::VmSpec& spec);

}  // namespace caisson::life
