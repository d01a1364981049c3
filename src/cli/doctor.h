// caisson doctor: what this host can do for machines, and why not where it cannot.
//   Threads  main thread
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace caisson::cli {

enum class Verdict : unsigned char { Good, Limited, Bad };

struct Finding {
  std::string_view id;  // stable, for scripts
  Verdict verdict;
  std::string text;  // what was found
  std::string why;   // what follows from it, or the remedy
};

[[nodiscard]] std::vector<Finding> examine();
// Exit status: 0 when machines can run here, 1 when not.
int doctor(bool json);

}  // namespace caisson::cli
