// Under each command's --help stands how it is used, with examples of that command.
#pragma once

namespace CLI {
class App;
}

namespace caisson::cli {

// To be called on the whole tree of commands, before the program's own footer is set (CLI11 gives a new command its
// parent's).
void add_examples(CLI::App& program);

}  // namespace caisson::cli
