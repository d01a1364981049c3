// Files of the store and the command line: what a VM boots from (the VMM opens nothing by path), and what is kept
// between runs.
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace caisson {

// A regular, non-empty file for reading. `what` names it in errors: "kernel", "initrd".
[[nodiscard]] Result<Fd> open_input(std::string_view what, const std::string& path);

// Folders by the XDG base directory specification. None where neither the variable nor HOME is set.
[[nodiscard]] Result<std::string> cache_folder();   // …/caisson: can be made again
[[nodiscard]] Result<std::string> data_folder();    // …/caisson: the user's
[[nodiscard]] Result<std::string> config_folder();  // …/caisson: settings, tokens and catalogues
// Where backing files of disks may lie besides the folders of their images: those that the user named, and the images.
[[nodiscard]] std::vector<std::string> backing_folders(std::vector<std::string> named);
// Makes the folder and its parents, mode 0700 where they are new.
[[nodiscard]] Result<> make_folders(const std::string& path);

[[nodiscard]] Result<std::string> read_file(const std::string& path, size_t most);
// Whole or not at all, also when the host's power fails: written beside, synced, renamed, the folder synced. `durable`
// false: without the syncs.
[[nodiscard]] Result<> write_file(const std::string& path, std::string_view text, bool durable = true);
// A file without a name in the data folder, for reading and writing; its room is free again with its last descriptor.
[[nodiscard]] Result<Fd> unnamed_file();
// Copies blocks that hold data only; shares them where the file system can. `to` is made whole or not at all.
[[nodiscard]] Result<> copy_sparse(const std::string& from, const std::string& to);
// Syncs one file or folder.
[[nodiscard]] Result<> sync_path(const std::string& path);
// Syncs the folder that names `path`, once a file was made, renamed or removed there. That has happened: where the sync
// fails there is a warning, not an error.
void sync_name(const std::string& path);
[[nodiscard]] Result<> remove_tree(const std::string& path);

}  // namespace caisson
