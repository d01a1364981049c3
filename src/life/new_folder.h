// A folder of an image that takes its place when it is whole, and goes otherwise: made beside, synced, renamed.
//   Threads  any; the caller holds the image's lock
#pragma once

#include <string>

#include "base/result.h"
#include "life/images.h"

namespace caisson::life {

class NewFolder {
 public:
  // Empty, in the folder of images. What another left behind that was killed is removed.
  [[nodiscard]] static Result<NewFolder> make(const ImageName& name);
  NewFolder(NewFolder&& other) noexcept;
  NewFolder& operator=(NewFolder&&) = delete;
  ~NewFolder();

  [[nodiscard]] std::string file(std::string_view name) const { return temporary_ + "/" + std::string{name}; }
  // Under its name; what stands there is replaced. Returns where it is.
  [[nodiscard]] Result<std::string> finish();

 private:
  NewFolder() = default;
  std::string path_;
  std::string temporary_;
};

// Removes what imports left behind that were killed.
void sweep_new_folders();

}  // namespace caisson::life
