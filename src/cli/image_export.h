// caisson image export: *.qcow2 is the image's disk alone, which other hypervisors take as well; *.tar is all of the
// image, kernel and manifest as well, for caisson image import on another host.
//   Result   a file that is whole or not there
//   Threads  main thread
#pragma once

#include <string>

#include "base/result.h"
#include "life/images.h"

namespace caisson::cli {

struct ExportOptions {
  bool force = false;  // replace a file that is there
  bool json = false;   // how progress is shown
};

// What the file's name says, before anything is done.
[[nodiscard]] Result<> check_export(const std::string& file);
[[nodiscard]] Result<> export_image(const life::ImageName& name, const std::string& file, const ExportOptions& options);

}  // namespace caisson::cli
