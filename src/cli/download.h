// Files from the network by way of caisson-fetch: tried again where the network fails, gone on with by a later command.
//   Files    <cache>/caisson/downloads/: NAME has the bytes so far, NAME.json the address and version that they are of
//   Threads  main thread
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace caisson::cli {

struct DownloadOptions {
  uint64_t most_bytes = 0;
  bool json = false;      // how progress is shown
  unsigned tries = 5;     // at most; those that brought nothing wait longer and longer
  unsigned stall_s = 60;  // seconds without a byte that end a try
};

class Download {
 public:
  // `name`: of the file in the folder of downloads. Another command that has it is an error.
  [[nodiscard]] static Result<Download> begin(const std::string& name);

  // Goes on where the file is a part of what is at that address.
  [[nodiscard]] Result<> get(const std::string& url, const DownloadOptions& options);
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int fd() const { return file_.get(); }
  // The file is needed no more, or no good.
  void remove();

 private:
  Download() = default;
  std::string path_;
  Fd file_;  // with the lock
};

// Whether minisign's `key` has signed the file of that descriptor; `signature`: a file. The signature's comment.
[[nodiscard]] Result<std::string> check_signature(const std::string& key, const std::string& signature, int file);

}  // namespace caisson::cli
