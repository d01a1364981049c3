// Pages for man(1), made from the tree of commands, as --help is.
//   Format  man(7)
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace caisson::cli {

// The page of a command: `path` is what one types, "caisson disk create".
[[nodiscard]] std::string manual_page(const CLI::App& command, const std::string& path);
// caisson man: the program's page on standard output, or into the folder one file for each command, replacing those of
// an earlier version. The exit status.
[[nodiscard]] int manual(const CLI::App& program, const std::string& folder);

}  // namespace caisson::cli
