// caisson image pull and catalogue: images from addresses, checked against what the catalogue says about them.
//   Threads  main thread
#pragma once

#include <string>

#include "base/result.h"
#include "life/catalogue.h"

namespace caisson::cli {

struct PullOptions {
  bool force = false;     // in the place of an image that is there
  bool json = false;      // how progress is shown
  unsigned tries = 5;     // of a download that brings nothing, before it is given up
  unsigned stall_s = 60;  // seconds without a byte that end a try
};

// The image's folder. What is built here is built.
[[nodiscard]] Result<std::string> pull_image(const life::CatalogueEntry& entry, const PullOptions& options);

// Exit status.
int show_catalogue(bool json);

}  // namespace caisson::cli
