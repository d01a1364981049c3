// The record of who did what: a JSON line for each operation that changes something, and for each refusal.
//   File     appended to, mode 0600; at `max_bytes` it becomes FILE.1, in the place of the one before
//   Threads  any
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace caisson::api {

class Audit {
 public:
  static constexpr uint64_t max_bytes = 8 << 20;
  [[nodiscard]] static Result<Audit> open(std::string path);
  Audit(Audit&& other) noexcept : path_(std::move(other.path_)), fd_(std::move(other.fd_)) {}
  Audit& operator=(Audit&&) = delete;

  struct Entry {
    std::string_view who{};        // "token ci"; empty: nobody that is known
    std::string_view role{};       // empty: none
    std::string_view operation{};  // of the table of routes, or what was tried instead
    std::string_view object{};     // the machine, image or job
    unsigned status = 0;           // of HTTP; 0: none
    std::string_view result{};     // "ok", or why not
  };
  void write(const Entry& entry);

 private:
  Audit(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::string path_;
  std::mutex mutex_;
  Fd fd_;
};

}  // namespace caisson::api
