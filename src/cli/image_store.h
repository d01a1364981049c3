// caisson image ls, rm.
//   Threads  main thread
#pragma once

#include <string>

#include "base/result.h"

namespace caisson::cli {

// In hexadecimal.
[[nodiscard]] Result<std::string> sha256_file(const std::string& path);

// Exit statuses.
int image_list(bool json);
int image_remove(const std::string& name);

}  // namespace caisson::cli
