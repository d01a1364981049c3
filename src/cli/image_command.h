// caisson image: build, import, export, list and remove images.
//   Threads  main thread
#pragma once

#include <memory>

namespace CLI {
class App;
}

namespace caisson::cli {

struct ImageCommand;

// Adds it to the command line.
[[nodiscard]] std::shared_ptr<ImageCommand> add_image(CLI::App& app);
// Exit status.
int run_image(ImageCommand& command);

}  // namespace caisson::cli
