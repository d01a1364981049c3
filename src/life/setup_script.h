// What user-data asks for, as a script for images without cloud-init: those that are built here run it
// (docs/images.md).
//   Form     sh SCRIPT early   at each boot before the ssh server, until all is done: the user, keys, the name, files
//            sh SCRIPT late    then, with the network: packages, or the user's own script; both may run again
//   Threads  pure functions
#pragma once

#include <string>
#include <string_view>

#include "life/seed.h"

namespace caisson::life {

[[nodiscard]] std::string setup_script(const Seed& seed);

// 'text' as one word of a shell.
[[nodiscard]] std::string quoted(std::string_view text);
[[nodiscard]] std::string base64(std::string_view bytes);

}  // namespace caisson::life
