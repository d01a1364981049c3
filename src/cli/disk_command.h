// `caisson disk`: makes, looks at, checks, resizes, converts and maps disk images. Raw and qcow2 by Caisson itself,
// VMDK, VHDX and VDI by cli/foreign_image.
//   Threads  main thread
#pragma once

#include <memory>

namespace CLI {
class App;
}

namespace caisson::cli {

struct DiskCommand;

// Adds the sub-commands; what they are given goes to the object returned, which must outlive the parsing.
[[nodiscard]] std::shared_ptr<DiskCommand> add_disk(CLI::App& app);
// Runs the one that was given; gives the exit status.
[[nodiscard]] int run_disk(DiskCommand& command);

}  // namespace caisson::cli
