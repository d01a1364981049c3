// caisson image import: a disk, or all of an exported image, becomes an image of this host.
//   Result   a folder in the image store, whole or not at all
//   Threads  main thread
#pragma once

#include <string>

#include "base/result.h"
#include "life/images.h"

namespace caisson::cli {

struct ImportOptions {
  std::string format{};    // of the file: raw, qcow2, vmdk, vhdx, vdi or tar; empty: as its name says, else raw
  std::string kernel{};    // files, for a disk whose kernel is started from outside
  std::string initrd{};    //
  std::string append{};    // with a kernel: its command line; empty: that of our own images
  std::string firmware{};  // "bios" or "uefi"; empty: by what is on the disk
  std::string source{};    // what the manifest says about where it is from; empty: the file
  bool force = false;      // in the place of an image that is there and that no machine needs
  bool json = false;       // how progress is shown
};

// What the options say against each other, before anything is done or downloaded.
[[nodiscard]] Result<> check_import(const ImportOptions& options);
// The image's folder.
[[nodiscard]] Result<std::string> import_image(const life::ImageName& name, const std::string& file,
                                               const ImportOptions& options);

// An error where there is one of that name that stays.
[[nodiscard]] Result<> check_replaced(const life::ImageName& name, bool force);

// Names the remedy where an error says that a disk is full.
[[nodiscard]] Error with_remedy(Error error);

}  // namespace caisson::cli
