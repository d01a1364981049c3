#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace caisson {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "caisson: internal error: %s does not hold at %s:%d; please report this line\n", condition, file,
               line);
  std::abort();
}

}  // namespace caisson
