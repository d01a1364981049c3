#include "base/result.h"

#include <cerrno>
#include <cstring>

namespace caisson {

std::unexpected<Error> fail_errno(int number, std::string_view what) {
  char text[128];
  // The one remedy that is always the same.
  const char* const remedy = number == ENOSPC || number == EDQUOT ? "; make room there" : "";
  return fail("{}: {}{}", what, strerror_r(number, text, sizeof text), remedy);
}

std::unexpected<Error> with_context(std::string_view where, Error error) {
  return fail("{}: {}", where, error.message);
}

}  // namespace caisson
