// Firmware as Debian's packages install it, and the file in which a machine's UEFI keeps its variables.
//   Threads  main thread
#pragma once

#include <string>

#include "life/machine_files.h"

namespace caisson::life {

// In the machine's folder, where the user names no other file.
inline constexpr const char* firmware_vars_file = "firmware-vars.fd";

// `vars`: the path of that file, for UEFI; made from the firmware's template where it is not there, locked as a disk
// is. Empty: variables are lost when the machine ends.
[[nodiscard]] Result<> add_firmware(Machine& machine, control::FirmwareKind kind, const std::string& vars);

}  // namespace caisson::life
