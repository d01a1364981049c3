// Checks for our own mistakes: they stay on in release builds, print where, and abort.
// Never use them on anything a guest, a user or the host can influence.
#pragma once

namespace caisson {

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace caisson

#define CAISSON_CHECK(condition)                               \
  (__builtin_expect(static_cast<bool>(condition), 1) ? void(0) \
                                                     : ::caisson::check_failed(#condition, __FILE__, __LINE__))
