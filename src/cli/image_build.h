// caisson image build: a minimal Debian disk, made without root by mmdebstrap and mke2fs.
//   Rights   as root: directly. Otherwise in an own user namespace (subordinate ids of /etc/subuid), else under
//   fakechroot and
//            fakeroot. docs/decisions/ says why.
//   Result   a folder in the image store, whole or not at all: made in a temporary folder beside it, synced, renamed
//   Threads  main thread; waits for its children and for SIGINT, SIGTERM, SIGHUP, which end the build and clean up
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "life/images.h"

namespace caisson::cli {

struct BuildOptions {
  std::string size = "4G";
  std::string mirror;  // empty: the host's apt sources, else mmdebstrap's default
  bool verbose = false;
  bool force = false;    // build although there is one
  bool dry_run = false;  // says what it would do
};

// The folder of the image, built now if it was not there.
[[nodiscard]] Result<std::string> build_image(const life::ImageName& name, const BuildOptions& options);

}  // namespace caisson::cli
