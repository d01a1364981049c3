// Makes machines in the store.
//   Threads  any
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "life/follow.h"
#include "life/images.h"
#include "life/seed.h"
#include "store/store.h"
#include "store/vm_spec.h"

namespace caisson::life {

struct NewMachine {
  std::string name;
  store::VmSpec spec;                             // without what the image gives but firmware, see firmware_of()
  std::optional<ImageName> image;                 // which is on this host
  std::optional<Seed> seed{};                     // for cloud-init, on a disk behind the others
  std::vector<control::DiskLimit> disk_limits{};  // by the names of life/limits.h, the image's disk being the first
};

// Its folder, with its lock, and its configuration whole.
struct Made {
  store::Store::Draft draft;
  store::VmSpec spec;
};

// What `spec` of a machine must say that is made of an image which starts so, unless it has a kernel of its own.
[[nodiscard]] control::FirmwareKind firmware_of(BootBy boot);

// An error where there is one of that name.
[[nodiscard]] Result<> check_new(const store::Store& store, const std::string& name);
// The same, and where its image is not here or cannot do what the seed asks for.
[[nodiscard]] Result<> check_creation(const store::Store& store, const NewMachine& wish);
// `follow` is told where it waits for another command that uses the image.
[[nodiscard]] Result<Made> create(const store::Store& store, NewMachine wish, const Follow& follow);

}  // namespace caisson::life
