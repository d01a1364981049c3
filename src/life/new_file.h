// A file that becomes `path` when it is whole, and goes otherwise: written beside, renamed.
//   Threads  any
#pragma once

#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace caisson::life {

class NewFile {
 public:
  // `force`: what stands at `path` is replaced, in the end.
  [[nodiscard]] static Result<NewFile> make(const std::string& path, bool force);
  NewFile(NewFile&&) = default;
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();

  [[nodiscard]] const Fd& fd() const { return fd_; }
  [[nodiscard]] Fd take_fd() { return std::move(fd_); }
  [[nodiscard]] const std::string& temporary() const { return temporary_; }
  [[nodiscard]] Result<> finish();

 private:
  NewFile() = default;
  std::string path_;
  std::string temporary_;
  Fd fd_;
};

}  // namespace caisson::life
