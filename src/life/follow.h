// How the caller of an operation that takes long follows it, and ends its patience.
//   Threads  plain data; the operation calls on the thread that it was called on
#pragma once

#include <functional>
#include <stop_token>
#include <string_view>

namespace caisson::life {

// A line for whoever waits, without a line's end.
using Say = std::function<void(std::string_view)>;

struct Follow {
  Say say = [](std::string_view) {};
  // Once it is asked to stop the operation ends with an error, leaving what it has begun as it is.
  std::stop_token cancelled{};
};

}  // namespace caisson::life
