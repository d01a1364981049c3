// For tests: everything that is in a folder, to be compared with what is there later.
//   Threads  pure functions
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

namespace caisson::api {

// Contents by path; of folders the word "folder".
[[nodiscard]] inline std::map<std::string, std::string> image_of(const std::string& folder) {
  std::map<std::string, std::string> all;
  std::error_code error;
  std::filesystem::recursive_directory_iterator entry{folder, error};
  for (; !error && entry != std::filesystem::recursive_directory_iterator{}; entry.increment(error)) {
    std::ifstream file{entry->path(), std::ios::binary};
    all[entry->path().string()] =
        entry->is_directory() ? "folder"
                              : std::string{std::istreambuf_iterator<char>{file}, std::istreambuf_iterator<char>{}};
  }
  return all;
}

}  // namespace caisson::api
