// Progress of a long command on standard error: one line that is rewritten on a terminal, plain lines elsewhere.
//   Threads  main thread
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caisson::cli {

class Progress {
 public:
  explicit Progress(unsigned steps);
  ~Progress();  // leaves the cursor on a line of its own

  void step(std::string_view what);
  void percent(double value);  // of the step
  void done(std::string_view what);

 private:
  [[nodiscard]] double elapsed_s() const;
  void show(std::optional<double> value);

  const unsigned steps_;
  const bool terminal_;
  const uint64_t start_ns_;
  unsigned current_ = 0;
  int shown_quarter_ = 0;
  double step_start_s_ = 0;
  bool line_open_ = false;
  std::string what_;
};

}  // namespace caisson::cli
