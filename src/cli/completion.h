// What shells complete, from the one tree of commands and options.
//   Threads  main thread
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace caisson::cli {

// caisson completion bash|zsh|fish: the exit status.
[[nodiscard]] int completion(const CLI::App& app, const std::string& shell);

}  // namespace caisson::cli
