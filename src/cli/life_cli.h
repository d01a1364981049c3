// The command line of life_commands.h and list_commands.h.
//   Threads  main thread
#pragma once

#include <memory>
#include <optional>

namespace CLI {
class App;
}

namespace caisson::cli {

struct LifeCli;

// Adds the commands to `app`, which goes before what this gives.
[[nodiscard]] std::shared_ptr<LifeCli> add_life(CLI::App& app);
// The exit status, where one of them was given.
[[nodiscard]] std::optional<int> run_life(const LifeCli& given);

}  // namespace caisson::cli
