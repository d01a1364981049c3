// What cloud-init finds at a machine's first start: a small disc with the label CIDATA. Images that are built here find
// the same as a script there (setup_script.h).
//   Manual   https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html: user-data and meta-data;
//            user-data is a "#cloud-config", written as JSON, which YAML is a superset of
//   Threads  pure functions
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::life {

struct SeedFile {
  std::string path;     // in the guest, absolute
  std::string content;  // bytes
};

struct Seed {
  static constexpr size_t max_user_data = 4 << 20;  // bytes, as it is on the disc

  std::string user_data{};          // of the user's own, as it is; then only `hostname` may be given as well
  std::string user{};               // made, may do everything by sudo
  std::vector<std::string> keys{};  // ssh's, one line each, for `user`, else for the image's own user
  std::string hostname{};           // empty: the machine's name
  std::vector<std::string> packages{};
  std::vector<SeedFile> files{};
};

// Everything that may be wrong with it.
[[nodiscard]] Result<> check(const Seed& seed);
// The disc. `root_key`: also lets root in by ssh; empty: nobody. `made_ms`: UTC, since 1970; of two seeds with another
// one each cloud-init takes the second for another machine's.
[[nodiscard]] Result<std::string> make_seed(const Seed& seed, std::string_view machine, std::string_view root_key,
                                            uint64_t made_ms);

}  // namespace caisson::life
