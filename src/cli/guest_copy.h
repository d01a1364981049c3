// caisson cp: files and folders into and out of a running machine.
//   Threads  main thread
#pragma once

#include <string>

namespace caisson::cli {

struct Copy {
  std::string outside;  // a path of this host
  std::string inside;   // one of the guest, relative to root's home
  bool into = true;     // the guest
  bool recursive = false;
};

// One of the two is NAME:PATH. An exit status; 255 where the machine cannot be reached. Waits for it to come up.
[[nodiscard]] int copy_command(const std::string& from, const std::string& to, bool recursive, bool dry_run);

}  // namespace caisson::cli
