#include "base/result.h"

#include <cstring>

namespace caisson {

std::unexpected<Error> fail_errno(int number, std::string_view what) {
  char text[128];
  return fail("{}: {}", what, strerror_r(number, text, sizeof text));
}

std::unexpected<Error> with_context(std::string_view where, Error error) {
  return fail("{}: {}", where, error.message);
}

}  // namespace caisson
