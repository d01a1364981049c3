// One file from the network, by libcurl: http and https, goes on where an earlier try was cut off.
//   Resume   a range is asked for together with what the server said about the file's version (RFC 9110, 13.1.5:
//   If-Range), so
//            that of two versions no mixture is made; a server that sends all of it has the file begun anew
//   Bounds   size, redirects, and how long nothing may come
//   Threads  one
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"

namespace caisson::fetch {

struct Request {
  std::string url;
  uint64_t from = 0;      // bytes that the file has already
  std::string validator;  // what the server said about these: an ETag or a date; empty: begin anew
  uint64_t most = 0;      // bytes that the file may have in the end
  unsigned stall_s = 60;  // seconds without a byte that end it
};

struct Told {
  // Once the server has answered: its word about the version, empty where it has none that holds for bytes.
  std::function<void(const std::string& validator, uint64_t from, uint64_t total)> begins;
  // Bytes the file has now, and will have; 0 where the server does not say.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

struct Failure {
  Error error;
  bool again = false;  // the same request may work later: the network's or the server's fault
};

// `file`: open for writing; has at least `from` bytes. Returns its size.
[[nodiscard]] std::expected<uint64_t, Failure> transfer(const Request& request, int file, const Told& told);

}  // namespace caisson::fetch
