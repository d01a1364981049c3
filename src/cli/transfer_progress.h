// How far a long transfer is, on standard error: done, rate and time left. One line that is rewritten on a terminal, a
// plain line every few seconds elsewhere, JSON lines with --json.
//   Threads  main thread
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace caisson::cli {

class TransferProgress {
 public:
  TransferProgress(std::string_view what, bool json);
  ~TransferProgress();  // leaves the cursor on a line of its own

  // `done` of `total`, in bytes; 0: nobody knows how many. Cheap: most calls show nothing.
  void update(uint64_t done, uint64_t total);
  // So much was there before: it counts for no rate.
  void begin_at(uint64_t bytes) { first_ = bytes; }

 private:
  const std::string what_;
  const bool json_;
  const bool terminal_;
  const uint64_t start_ns_;
  uint64_t shown_ns_;
  uint64_t first_ = 0;
  bool line_open_ = false;
};

// "1.5 GiB"
[[nodiscard]] std::string human_bytes(uint64_t bytes);
// "5 s", "3 min 20 s", "2 h 5 min"
[[nodiscard]] std::string human_time(uint64_t seconds);

}  // namespace caisson::cli
